#!/bin/bash
# Apply patches/ to the base, without fuzz.
#
# The queue becomes the branch "queue" of build/src, one commit per patch, and
# build/src is made to match it.  The commits are made beside the work tree, in
# an index of their own, so that only files that come out differently are
# written: what does not change is not compiled again.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

BASE=refs/tags/base
STAMP=$BUILD/queue-id

cd "$REPO"

# What the branch depends on
queue_id() {
	git rev-parse "$BASE^{commit}"
	sha256sum "$ROOT/scripts/queue.sh"
	queue_files | while read -r patch; do
		[ -e "$ROOT/patches/$patch" ] || die "patches/series lists $patch, but it is not there"
		sha256sum "$ROOT/patches/$patch"
	done
}

# field NAME FILE: of what git mailinfo found in a mail's header
field() {
	sed -n "s/^$1: //p" "$2"
}

# add_patch FILE PARENT: prints the commit.  It depends on nothing but the two.
add_patch() {
	local patch=$ROOT/patches/$1 mail=$BUILD/mail hunk

	mkdir -p "$mail"
	git mailinfo "$mail/message" "$mail/diff" <"$patch" >"$mail/header"
	if ! git apply --cached --whitespace=nowarn "$mail/diff" 2>"$mail/errors"; then
		hunk=$(sed -n 's/^error: patch failed: /first rejected hunk: /p' "$mail/errors" | head -n 1)
		die "patches/$1 does not apply to $(git tag -l --format='%(contents:subject)' base)
${hunk:-$(cat "$mail/errors")}
Correct it there, or in build/linux and then run: make export"
	fi
	GIT_AUTHOR_NAME=$(field Author "$mail/header")
	GIT_AUTHOR_EMAIL=$(field Email "$mail/header")
	GIT_AUTHOR_DATE=$(field Date "$mail/header")
	if [ -z "$GIT_AUTHOR_EMAIL" ] || [ -z "$GIT_AUTHOR_DATE" ]; then
		die "patches/$1 has no From: or no Date:"
	fi
	export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE
	{
		field Subject "$mail/header"
		echo
		cat "$mail/message"
	} | git stripspace |
		GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL \
		GIT_COMMITTER_DATE=$GIT_AUTHOR_DATE git commit-tree -p "$2" "$(git write-tree)"
}

# Prints the last commit of the queue.
make_queue() {
	local commit patch

	export GIT_INDEX_FILE=$BUILD/queue-index
	rm -f "$GIT_INDEX_FILE" "$GIT_INDEX_FILE.lock"	# one that was killed left it
	git read-tree "$BASE"
	commit=$(git rev-parse "$BASE^{commit}")
	for patch in $(queue_files); do
		commit=$(add_patch "$patch" "$commit") || return
	done
	rm -rf "$GIT_INDEX_FILE" "$BUILD/mail"
	echo "$commit"
}

[ -e "$ROOT/patches/series" ] || die "patches/series is missing: the list of patches, in order"
id=$(queue_id)
if [ "$(sed '$d' "$STAMP" 2>/dev/null)" = "$id" ]; then
	new=$(tail -n 1 "$STAMP")
else
	new=$(make_queue)
	printf '%s\n%s\n' "$id" "$new" >"$STAMP.new"
	mv "$STAMP.new" "$STAMP"
fi

# Nothing may be there that patches/ lacks.
if ! finish_switch && [ -n "$(git status --porcelain)" ]; then
	git status --short | head -n 20 >&2
	die "build/src has changes that patches/ does not have, and they would be lost or built
unnoticed.  Make them in build/linux instead (make tree, make export).  To drop
them: git -C build/src reset --hard && git -C build/src clean -dfx"
fi

if [ "$(git rev-parse HEAD)" != "$new" ]; then
	switch_to "$new"
	say "applied $(queue_files | wc -l) patches: $(git diff --shortstat "$BASE" HEAD)"
fi
git update-ref refs/heads/queue "$new"
