#!/bin/bash
# Remove what was built: scripts/clean.sh [all].  "all" removes the kernel
# source, compiler cache and build/linux too, all of build/.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

# Most of that Debian belongs to root
for system in "$OUT"/deb/root{,.new}; do
	[ ! -e "$system" ] || as_root rm -rf --one-file-system "$system"
done
if [ "${1:-}" != all ]; then
	rm -rf "$OUT"/{kernel-*,uapi,tests,examples,vm,vmm,kunit,log,matrix,bench,stress,mutants,coverage,oldconfig,check,smoke-passed,mbox,quilt,tree-*,deb,regress,run,run.svg,pristine}
	rm -rf "$BUILD"/bases/{available,index,partial,tree}
	exit
fi
if git -C "$REPO" rev-parse -q --verify refs/heads/series >/dev/null 2>&1 &&
	[ "$(git -C "$REPO" rev-parse series)" != "$(git -C "$REPO" rev-parse -q --verify refs/gmem/synced)" ]; then
	die "build/linux may have commits that patches/ does not have; run make export
or make tree first, or remove build/ by hand"
fi
# Debian's .gitignore hides new files
if [ -e "$BUILD/linux" ] && {
	! git -C "$BUILD/linux" symbolic-ref -q HEAD >/dev/null ||
		[ -n "$(git -C "$BUILD/linux" status --porcelain --ignored)" ]
}; then
	die "build/linux has changes or files that are not committed, or a rebase that is not finished;
see to that, or remove build/ by hand"
fi
rm -rf "$BUILD"
