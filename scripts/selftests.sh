#!/bin/bash
# Build KVM selftests for the VM, static: scripts/selftests.sh PROGRAM...
#
# PROGRAM is relative to tools/testing/selftests/kvm of the tree, without .c.
# One that the tree does not have is left out here, and fails in the VM.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

export CCACHE_DIR=$BUILD/ccache
targets=()
for program; do
	if [ -e "$SRC/tools/testing/selftests/kvm/$program.c" ]; then
		targets+=("$OUT/tests/$program")
	else
		say "tools/testing/selftests/kvm has no $program.c"
	fi
done
[ ${#targets[@]} -gt 0 ] || die "none of these selftests is in the tree: $*"

mkdir -p "$OUT/tests"
step selftests "build selftests" \
	make -C "$SRC/tools/testing/selftests/kvm" OUTPUT="$OUT/tests" \
	KHDR_INCLUDES="-isystem $OUT/uapi" \
	CC="ccache gcc" LDFLAGS=-static -j"$(nproc)" "${targets[@]}"
