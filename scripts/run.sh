#!/bin/bash
# Run the example VMM of examples/ in the VM: with conversion in place, then, in
# the same boot, with KVM reloaded for the old way, and compare.  Ends with a
# picture of what happened to the memory, which is also in build/run.svg.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

step examples "build examples" make -C "$ROOT/examples" UAPI="$OUT/uapi" O="$OUT/examples"

# traced ROW ARGUMENT...: a line of a plan that runs gmem-vmm.  The only way out
# of the VM is the report: what it has recorded follows in lines that begin with @.
traced() {
	local row=$1

	shift
	printf 'run\trow %s: gmem-vmm\t300\t' "$row"
	printf "gmem-vmm --trace /tmp/trace %s; status=\$?; sed 's/^/@/' /tmp/trace; exit \$status\n" "$*"
}

plan=$OUT/vm/run
mkdir -p "$OUT/vm"
{
	row_plan 1
	traced 1 --save /tmp/in-place
	row_plan 3
	traced 3 --compare /tmp/in-place
} >"$plan"
"$ROOT/scripts/vm.sh" -p "$plan" -o -a "$OUT/examples/gmem-vmm" | grep -v '^@' || exit 3

sed -n 's/^# @//p' "$LOG/vm-run.tap" | awk -v svg="$OUT/run.svg" -f "$ROOT/scripts/picture.awk" ||
	die "cannot draw what is recorded in ${LOG#"$ROOT"/}/vm-run.tap"
say
say "The same as a picture: ${OUT#"$ROOT"/}/run.svg"
