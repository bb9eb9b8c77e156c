#!/bin/bash
# Make build/unpatched, the base without the series, to compare with, and its
# headers for programs.  "scripts/unpatched.sh PROGRAM..." also builds selftests
# of it, for the VM: as base/PROGRAM beside those of the series.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

UNPATCHED=$BUILD/unpatched
UNPATCHED_OUT=$BUILD/tree-unpatched

[ -e "$REPO" ] || die "build/src is not there; run: make base"
base=$(git -C "$REPO" rev-parse 'refs/tags/base^{commit}')
[ -e "$UNPATCHED/Makefile" ] || rm -rf "$UNPATCHED"
if [ "$(git -C "$UNPATCHED" rev-parse HEAD 2>/dev/null)" != "$base" ]; then
	step unpatched "check out build/unpatched" work_tree "$UNPATCHED" "$base"
fi

if [ "$(cat "$UNPATCHED_OUT/headers-id" 2>/dev/null)" != "$base" ]; then
	mkdir -p "$UNPATCHED_OUT/kernel-y"
	step unpatched-headers "headers of build/unpatched" \
		make -C "$UNPATCHED" O="$UNPATCHED_OUT/kernel-y" headers
	ln -sfn kernel-y/usr/include "$UNPATCHED_OUT/uapi"
	echo "$base" >"$UNPATCHED_OUT/headers-id"
fi

if [ $# -gt 0 ]; then
	TREE=build/unpatched "$ROOT/scripts/selftests.sh" "$@"
	mkdir -p "$OUT/tests"
	ln -sfn "$UNPATCHED_OUT/tests" "$OUT/tests/base"
fi
