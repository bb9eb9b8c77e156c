#!/bin/bash
# Make build/linux, a git work tree to develop in: the branch "series", one
# commit per patch on top of the base.  Commits that patches/ lacks are not
# touched.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
[ $# = 0 ] || { usage >&2; exit 2; }
patches_only

LINUX=$BUILD/linux

# commits BRANCH: all that patches/ keeps of them
commits() {
	git log --format='%T %an <%ae> %ad%n%B' "refs/tags/base..$1"
}

cd "$REPO"
git worktree prune
if ! git rev-parse -q --verify refs/heads/series >/dev/null; then
	git branch series queue
fi
if [ ! -e "$LINUX" ]; then
	step worktree "check out build/linux" git worktree add "$LINUX" series
fi

if [ "$(commits series)" = "$(commits queue)" ]; then
	say "build/linux has what patches/ has"
elif [ "$(git rev-parse series)" != "$(git rev-parse -q --verify refs/gmem/synced)" ] ||
	[ -n "$(git -C "$LINUX" status --porcelain --untracked-files=no)" ]; then
	die "build/linux has commits or changes that patches/ does not have; either
save them in patches/:  make export
or drop them:           git -C build/linux reset --hard queue"
else
	git -C "$LINUX" reset -q --keep queue
	say "build/linux now has what patches/ has"
fi
git update-ref refs/gmem/synced series
git -C "$LINUX" --no-pager log --oneline --reverse refs/tags/base..series
