#!/bin/bash
# Run the tests of vm/tests in the VM, in every configuration that the tree has.
#
# ROWS=13 runs only those rows, TESTS='guest_memfd*' only programs that match.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

rows=${ROWS:-1234}

# Before its patches, the tree always tracks PRIVATE per VM: that is row 3
if ! grep -q KVM_VM_MEMORY_ATTRIBUTES "$SRC/arch/x86/kvm/Kconfig"; then
	say "this tree has no KVM_VM_MEMORY_ATTRIBUTES: only row 3 can run"
	rows=3
elif ! grep -q gmem_in_place_conversion "$SRC/virt/kvm/kvm_main.c"; then
	say "this tree has no kvm.gmem_in_place_conversion: only rows 2 and 3 can run"
	rows=23
fi

# selected: the tests to run, as lines ROWS SECONDS PROGRAM ARGUMENTS...
selected() {
	local kind at program rest

	while read -r kind at program rest; do
		[ "$kind" = test ] || continue
		# shellcheck disable=SC2053 # TESTS is a pattern
		[[ ${rest%% *} = ${TESTS:-*} ]] && echo "$at $program $rest"
	done <"$ROOT/vm/tests"
}

selected | cut -d' ' -f3 | sort -u | xargs "$ROOT/scripts/selftests.sh"

plan=$OUT/vm/test
mkdir -p "$OUT/vm"
for ((i = 0; i < ${#rows}; i++)); do
	row=${rows:i:1}
	row_plan "$row"
	selected | while read -r at seconds command; do
		[[ $at = *$row* ]] || continue
		printf 'run\trow %s: %s\t%d\t/tests/%s\n' "$row" "$command" "$seconds" "$command"
	done
done >"$plan"
exec "$ROOT/scripts/vm.sh" -p "$plan"
