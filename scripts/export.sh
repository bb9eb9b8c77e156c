#!/bin/bash
# Regenerate patches/ from build/linux: one patch per commit on top of the base.
#
# The same commits always give the same bytes, whatever the user's git is told
# to do, so that a diff of patches/ shows what changed and nothing else.  The
# cover letter, patches/0000-cover-letter.patch, is kept as it is, except for the
# number of patches in its subject.  It lists all patches, which is verified.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

BASE=refs/tags/base
TIP=refs/heads/series
NEW=$BUILD/patches.new
LINUX=$BUILD/linux

[ -e "$REPO" ] || die "there is no kernel source yet; run: make tree"
cd "$REPO"
git rev-parse -q --verify "$TIP" >/dev/null ||
	die "there is no branch \"series\" yet; run: make tree"
git merge-base --is-ancestor "$BASE" "$TIP" ||
	die "branch \"series\" is not on top of the base; run: git -C build/linux rebase --onto base OLD-BASE"
[ -z "$(git rev-list --merges "$BASE..$TIP")" ] ||
	die "branch \"series\" has merges; run: git -C build/linux rebase base"
if [ -e "$LINUX" ]; then
	[ "$(git -C "$LINUX" symbolic-ref -q HEAD)" = "$TIP" ] ||
		say "warning: build/linux is not on branch \"series\" (a rebase?); exporting the branch"
	[ -z "$(git -C "$LINUX" status --porcelain)" ] ||
		say "warning: build/linux has changes that are not committed, and not exported"
fi

rm -rf "$NEW"
mkdir -p "$ROOT/patches"
cp -a "$ROOT/patches" "$NEW"
find "$NEW" -maxdepth 1 -name '[0-9][0-9][0-9][0-9]-*.patch' ! -name '0000-*' -delete
GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 \
	git format-patch -q -o "$NEW" --zero-commit --no-signature --no-stat --no-numbered \
	--full-index --no-renames --diff-algorithm=histogram --unified=3 "$BASE..$TIP"
(cd "$NEW" && find . -maxdepth 1 -name '[0-9][0-9][0-9][0-9]-*.patch' ! -name '0000-*' -printf '%f\n') |
	sort >"$NEW/series"

cover=$NEW/0000-cover-letter.patch
sed -i "1s,\[PATCH 0*0/[0-9]*\],[PATCH 00/$(wc -l <"$NEW/series")]," "$cover"
if ! wrong=$(diff <(sed -n '/^Order$/,/^Who asks/s/^  - //p' "$cover") \
	<(git log --reverse --format=%s "$BASE..$TIP")); then
	say "warning: the list of patches in the cover letter isn't right (> is missing):"
	sed -n 's/^[<>]/    &/p' <<<"$wrong"
fi

if diff -r "$ROOT/patches" "$NEW" >/dev/null; then
	say "patches/ is up to date: $(wc -l <"$NEW/series") patches"
	rm -rf "$NEW"
else
	git --no-pager diff --no-index --no-renames --name-status "$ROOT/patches" "$NEW" |
		sed -E 's,\t.*/,\t,' || true
	rm -rf "$BUILD/patches.old"
	mv "$ROOT/patches" "$BUILD/patches.old"
	mv "$NEW" "$ROOT/patches"
	say "wrote $(wc -l <"$ROOT/patches/series") patches; the former ones are in build/patches.old"
fi
# From here on, patches/ has all that the branch has.
git update-ref refs/gmem/synced "$TIP"
