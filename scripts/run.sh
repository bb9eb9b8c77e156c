#!/bin/bash
# Run the example VMM of examples/ in the VM: with conversion in place, then, in
# the same boot, with KVM reloaded for the old way, and compare.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

step examples "build examples" make -C "$ROOT/examples" UAPI="$OUT/uapi" O="$OUT/examples"

plan=$OUT/vm/run
mkdir -p "$OUT/vm"
{
	row_plan 1
	printf 'run\trow 1: gmem-vmm\t300\tgmem-vmm --save /tmp/in-place\n'
	row_plan 3
	printf 'run\trow 3: gmem-vmm\t300\tgmem-vmm --compare /tmp/in-place\n'
} >"$plan"
exec "$ROOT/scripts/vm.sh" -p "$plan" -o -a "$OUT/examples/gmem-vmm"
