#!/bin/bash
# Run the example VMM of examples/ in the VM:
#
# - its small guest, with conversion in place, and then, in the same boot with KVM
#   reloaded, the old way, and compare;
# - Linux as the guest, which is the kernel of the VM once more.
#
# Ends with a picture of what happened to the memory, which is also in build/run.svg.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

ADD=$OUT/run/root
SECONDS_LIMIT=$((300 * ${SLOW:-1}))

step examples "build examples" make -C "$ROOT/examples" UAPI="$OUT/uapi" O="$OUT/examples"

# linux_guest: its kernel and initramfs
linux_guest() {
	local root=$OUT/run/guest kernel=$OUT/kernel-n

	[ -e "$kernel/vmlinux" ] || kernel=$OUT/kernel-$(row_variant 1)
	rm -rf "$OUT/run"
	mkdir -p "$root" "$ADD/guest"
	strip -o "$root/init" "$OUT/examples/guest-linux"
	(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$ADD/guest/initramfs"
	strip -o "$ADD/guest/vmlinux" "$kernel/vmlinux"
}

# traced NAME COMMAND: a line of a plan.  The only way out of the VM is the report:
# what gmem-vmm has recorded follows in lines that begin with @.
traced() {
	printf 'run\t%s\t%d\t' "$1" "$SECONDS_LIMIT"
	printf "%s; status=\$?; sed 's/^/@/' /tmp/trace; rm -f /tmp/trace; exit \$status\n" "$2"
}

# vm NAME [OPTION]...: run a plan, and show what its programs say
vm() {
	"$ROOT/scripts/vm.sh" -p "$OUT/vm/$1" -o -a "$OUT/examples/gmem-vmm" "${@:2}" |
		grep --line-buffered -v '^@' || exit 3
}

mkdir -p "$OUT/vm"
linux_guest
{
	row_plan 1
	traced 'row 1: gmem-vmm' 'gmem-vmm --trace /tmp/trace --save /tmp/in-place'
	row_plan 3
	traced 'row 3: gmem-vmm' 'echo; gmem-vmm --trace /tmp/trace --compare /tmp/in-place'
} >"$OUT/vm/run"
{
	row_plan 1
	# shellcheck disable=SC2016
	traced 'row 1: gmem-vmm --kernel' "$(printf '%s' \
		'gmem-vmm --trace /tmp/trace --kernel /guest/vmlinux --initrd /guest/initramfs & ' \
		'vmm=$!; gmem-vmm --stats $vmm & stats=$!; ' \
		'wait $vmm; status=$?; wait $stats || status=1; (exit $status)')"
} >"$OUT/vm/run-linux"

vm run
say
vm run-linux -l -d "$ADD"

sed -n 's/^# @//p' "$LOG/vm-run.tap" "$LOG/vm-run-linux.tap" |
	awk -v svg="$OUT/run.svg" -f "$ROOT/scripts/picture.awk" ||
	die "cannot draw what is recorded in ${LOG#"$ROOT"/}/vm-run.tap and vm-run-linux.tap"
say
say "The same as a picture: ${OUT#"$ROOT"/}/run.svg"
