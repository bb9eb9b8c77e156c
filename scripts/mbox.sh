#!/bin/bash
# Write the series as mails, in one thread, and addressed to whom MAINTAINERS names:
# build/mbox/mails, one file each, for "git send-email"; the same as a mailbox,
# series.mbox; and patches.mbox, without the cover letter, where "git am" would stop.
#
# SIGNOFF='Name <mail>' is who sends the patches, and as their author signs them off.
# The same patches and SIGNOFF always give the same bytes.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
[ $# = 0 ] || { usage >&2; exit 2; }
patches_only

MBOX=$BUILD/mbox
PRISTINE=$BUILD/pristine
RANGE=refs/tags/base..refs/heads/queue

# What the base commit is, which nobody else has
base_text() {
	echo "The base is Linux $(release refs/tags/base)$(git -C "$REPO" tag -l --format='%(contents:subject)' base |
		sed -n 's/^\(linux-source[^,]*\),.*/, Debian package \1/p'):"
	echo "git tree $(git -C "$REPO" rev-parse 'refs/tags/base^{tree}'), as a commit"
	echo "of its own."
}

# mails DIRECTORY: one file each, with message IDs that don't tell the time
mails() {
	local description email=${sender#*<} options=(--from="$sender")

	# format-patch takes subject and text of the cover letter from here
	description="$(sed '1s/^Subject: \[PATCH[^]]*\] //' "$ROOT/patches/0000-cover-letter.patch")

$(base_text)"
	[ -z "${SIGNOFF:-}" ] || options+=(--signoff)
	cd "$REPO"
	GIT_COMMITTER_NAME=${sender% <*} GIT_COMMITTER_EMAIL=${email%>} \
	GIT_COMMITTER_DATE=$date GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 \
		git -c branch.queue.description="$description" format-patch -q -o "$1" \
		"${options[@]}" --cover-letter --cover-from-description=subject --numbered \
		--thread=shallow --base=refs/tags/base --no-signature --full-index --no-renames \
		--diff-algorithm=histogram "$RANGE" -- 2>"$LOG/mbox.log" || return
	sed -i -E "1,/^\$/{
		s/^((Message-ID|Message-Id|In-Reply-To|References): <[^.>]+)\.[0-9]+\.git\./\1.${date% *}.git./
		s/^Message-Id:/Message-ID:/
	}" "$1"/*
	sed -i "1,/^\$/s/^Date: .*/Date: $(date -u -R -d "@${date% *}")/" "$1"/0000-*
	# The one who signs off takes the place of the author, whom format-patch names in
	# the first line of the text
	[ -z "${SIGNOFF:-}" ] || sed -i '1,/^$/{/^$/{n; /^From: /{:more; N; /\n$/!b more; d}}}' "$1"/*
}

# recipients FILE: lines To|Cc ADDRESS, from MAINTAINERS.  What needs encoding goes
# without the name.
recipients() {
	PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0 \
		"$REPO/scripts/get_maintainer.pl" --no-git --no-git-fallback --no-keywords --rolestats "$@" |
		sed -E '/[(,](maintainer|supporter):/s/^/To /; t; s/^/Cc /' | sed -E 's/ \([^<>]*\)$//' |
		LC_ALL=C sed -E '/[\x80-\xff]/s/^(To|Cc) .*<(.*)>/\1 \2/'
}

# add_recipients FILE <LINES: To before Cc, and nobody twice
add_recipients() {
	awk '
		NR == FNR {
			address = substr($0, 4)
			if (!seen[address]++)
				list[$1] = list[$1] (list[$1] ? ",\n\t" : $1 ": ") address
			next
		}
		!body && /^(MIME-Version|Message-ID): / && !done++ {
			if ("To" in list) print list["To"]
			if ("Cc" in list) print list["Cc"]
		}
		/^$/ { body = 1 }
		{ print }' - "$1" >"$1.new"
	mv "$1.new" "$1"
}

# address DIRECTORY: every patch goes to those who maintain KVM, too, and the cover
# letter to all.  Who is in both lists is in To.
address() {
	local mail cache=$MBOX/recipients id

	mkdir -p "$cache"
	cd "$REPO"
	rm -f "$MBOX/all"
	recipients -f virt/kvm/guest_memfd.c >"$MBOX/kvm" || return
	for mail in "$1"/*.patch; do
		[[ $mail != */0000-* ]] || continue
		id=$({ git rev-parse refs/tags/base; git patch-id --stable <"$mail"; } | sha256sum | cut -c1-40)
		if [ ! -e "$cache/$id" ]; then
			recipients "$mail" >"$cache/new" && mv "$cache/new" "$cache/$id" || return
		fi
		cat "$cache/$id" >>"$MBOX/all"
		sort -s -r -k 1,1 "$MBOX/kvm" "$cache/$id" | add_recipients "$mail"
	done
	sort -s -r -k 1,1 "$MBOX/kvm" "$MBOX/all" | add_recipients "$1"/0000-*
	rm -f "$MBOX/all" "$MBOX/kvm"
}

# write DIRECTORY: the mails, and as mailboxes, there
write() {
	rm -rf "$1"
	mails "$1/mails" && address "$1/mails" && cat "$1"/mails/*.patch >"$1/series.mbox" &&
		find "$1/mails" -name '*.patch' ! -name '0000-*' | sort | xargs cat >"$1/patches.mbox"
}

# Twice the same; all mails, in one thread, and the tree that patches/ makes
verify() {
	local dir=$MBOX/new count ids

	count=$(git -C "$REPO" rev-list --count "$RANGE")
	write "$MBOX/again" && cmp "$dir/series.mbox" "$MBOX/again/series.mbox" &&
		cmp "$dir/patches.mbox" "$MBOX/again/patches.mbox" || return
	rm -rf "$MBOX/split"
	mkdir "$MBOX/split"
	[ "$(git mailsplit -o"$MBOX/split" "$dir/series.mbox")" = $((count + 1)) ] || return
	ids=$(sed -n '/^Message-ID: /{s///p;q}' "$MBOX/split/0001")
	[ "$(grep -lF "In-Reply-To: $ids" "$MBOX"/split/* | wc -l)" = "$count" ] &&
		[ "$(grep -lE '^To: .*@' "$MBOX"/split/* | wc -l)" = $((count + 1)) ] &&
		grep -q '^base-commit: ' "$MBOX/split/0001" || return
	if [ -n "${SIGNOFF:-}" ]; then
		[ "$(grep -lxF "Signed-off-by: $SIGNOFF" "$MBOX"/split/* | wc -l)" = "$count" ] || return
	fi
	work_tree "$PRISTINE" refs/tags/base &&
		GIT_COMMITTER_NAME=am GIT_COMMITTER_EMAIL=am git -C "$PRISTINE" am -q "$dir/patches.mbox" &&
		[ "$(git -C "$PRISTINE" rev-parse 'HEAD^{tree}')" = "$(git -C "$REPO" rev-parse 'queue^{tree}')" ] &&
		diff <(git -C "$PRISTINE" log --format='%an <%ae> %ad %s' refs/tags/base..HEAD) \
			<(git -C "$REPO" log --format="${SIGNOFF:-%an <%ae>} %ad %s" "$RANGE")
}

if [ -n "${SIGNOFF:-}" ]; then
	[[ $SIGNOFF =~ ^[^\<\>]+\ \<[^\<\>\ ]+@[^\<\>\ ]+\>$ ]] || die "SIGNOFF= has to be 'Name <mail>'"
fi
sender=${SIGNOFF:-$(git -C "$REPO" log -1 --format='%an <%ae>' queue)}
date=$(git -C "$REPO" log --format='%at +0000' "$RANGE" | sort -n | tail -n 1)
mkdir -p "$MBOX"
step mbox "write the mailbox" write "$MBOX/new"
step mbox-verify "verify it" verify
rm -rf "$MBOX/mails"
mv "$MBOX"/new/* "$MBOX/"
rm -rf "$MBOX"/{new,again,split}
sha256sum "$MBOX"/*.mbox | sed "s,$ROOT/,,"
say "git am build/mbox/patches.mbox, or git am --empty=drop build/mbox/series.mbox, gives the tree of patches/"
