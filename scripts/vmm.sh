#!/bin/bash
# Show that VMMs still work, in the VM: on a kernel without the series, and with
# it in rows 1, 3 and 4 of vm/tests.  Ends with a table.
#
# - QEMU boots Linux with KVM, as those use it who don't need guest_memfd: once
#   with a memfd as the guest's memory, and once with anonymous memory.  In the
#   guest, stress-ng runs for a minute.  See vm/qemu-host and vm/qemu-guest.
# - The code that Documentation/virt/kvm/guest-memfd.rst has for authors of VMMs
#   is compiled and run.  See vm/guide.c.
#
# QEMU is this machine's, or with QEMU_ROOT=DIRECTORY that of another system
# that is unpacked there.  The guest's kernel is the one of the VM in row 1.
# ROWS=13 runs only these rows, where 0 is the kernel without the series.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

ROWS=${ROWS:-0134}
QEMU_ROOT=$(realpath "${QEMU_ROOT:-/}")
QEMU_ROOT=${QEMU_ROOT%/}
QEMU=$QEMU_ROOT/usr/bin/qemu-system-x86_64
LIBS=lib/x86_64-linux-gnu
LINKER=$LIBS/ld-linux-x86-64.so.2
SECONDS_LIMIT=$((400 * ${SLOW:-1}))
ADD=$OUT/vmm/root

# run ROOT PROGRAM ARGUMENT...: with the dynamic linker and libraries of ROOT
run() {
	"$1/usr/$LINKER" --library-path "$1/usr/$LIBS:$1/$LIBS" "${@:2}"
}

# add ROOT PROGRAM DIRECTORY: a program, and its libraries, from one root to another
add() {
	local library

	mkdir -p "$3"/{bin,usr/bin,lib64,"$LIBS"}
	cp "$2" "$3/usr/bin/"
	run "$1" --list "$2" | awk '$2 == "=>" { print $3 }' | while read -r library; do
		cp -L "$library" "$3/$LIBS/"
	done
	cp -L "$1/usr/$LINKER" "$3/lib64/"
}

# qemu: what boots the guest
qemu() {
	local file

	add "$QEMU_ROOT" "$QEMU" "$ADD"
	cp "$ROOT/vm/qemu-host" "$ADD/bin/"
	for file in qemu/{kvmvapic,pvh}.bin seabios/bios-256k.bin; do
		mkdir -p "$ADD/usr/share/${file%/*}"
		cp -L "$QEMU_ROOT/usr/share/$file" "$ADD/usr/share/$file"
	done
}

# guest: its kernel and initramfs
guest() {
	local root=$OUT/vmm/guest

	mkdir -p "$root"/{proc,sys,dev,tmp} "$ADD/guest"
	add '' "$(command -v stress-ng)" "$root"
	cp "$(command -v busybox)" "$root/bin/busybox"
	busybox --list | grep -vx busybox | (cd "$root/bin" && xargs -n 1 ln -s busybox)
	cp "$ROOT/vm/qemu-guest" "$root/init"
	(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$ADD/guest/initramfs"
	strip -o "$ADD/guest/vmlinux" "$OUT/kernel-n/vmlinux"
}

# guide: the programs in it
guide() {
	guide_code 'Moving a VMM from per-VM attributes' >"$OUT/vmm/porting-guide.h"
	guide_code Example >"$OUT/vmm/guide-example.c"
	compile -I"$OUT/vmm" -o "$ADD/bin/guide" "$ROOT/vm/guide.c"
	compile -o "$ADD/bin/guide-example" "$OUT/vmm/guide-example.c"
}

compile() {
	gcc -Wall -Wextra -Werror -O2 -static -isystem "$OUT/uapi" "$@"
}

# plan ROW: what the VM is to do
plan() {
	local backend kvm name="row $1" way=''

	kvm=$'kvm\tbase\ty\t-'
	[ "$1" = 0 ] || kvm=$(row_plan "$1")
	printf '%s\n' "$kvm"

	case ${kvm#kvm*$'\t'} in
	*Y) way=in-place ;;
	*y$'\t'*) way=per-vm ;;
	esac
	[ "$1" != 0 ] || name=base
	[ -z "$way" ] ||
		printf 'run\t%s: code of the porting guide\t%d\tguide %s\n' \
			"$name" $((60 * ${SLOW:-1})) "$way"
	[ "$way" != in-place ] ||
		printf 'run\t%s: example of the guide\t%d\tguide-example\n' \
			"$name" $((60 * ${SLOW:-1}))
	for backend in memfd ram; do
		printf 'run\t%s: QEMU with %s\t%d\tqemu-host %s\n' \
			"$name" "$backend" "$SECONDS_LIMIT" "$backend"
	done
}

# vm TREE ROWS: run all of these rows
vm() {
	local out=$OUT rows=$2 i

	[ "$1" != build/unpatched ] || out=$BUILD/tree-unpatched
	[ -n "$rows" ] || return 0
	mkdir -p "$out/vm"
	for ((i = 0; i < ${#rows}; i++)); do
		plan "${rows:i:1}"
	done >"$out/vm/vmm"
	TREE=$1 "$ROOT/scripts/vm.sh" -l -p "$out/vm/vmm" -d "$ADD"
}

# table: what the guests have done
table() {
	local files=()

	[ -z "${ROWS//[^0]/}" ] || files+=("$BUILD/tree-unpatched/log/vm-vmm.tap")
	[ -z "${ROWS//0/}" ] || files+=("$LOG/vm-vmm.tap")
	awk '
		/^#start / { ok = "" }
		/^# guest ok: / { ok = substr($0, length("# guest ok: ") + 1) }
		/^(not )?ok .*: QEMU with / {
			match($0, /- .*: QEMU with [a-z]+/)
			split(substr($0, RSTART + 2, RLENGTH - 2), name, ": QEMU with ")
			n = split(ok, value)
			if (n && !heading++) {
				printf "%-8s %-6s %8s", "kernel", "memory", "all"
				for (i = 1; i < n; i += 2)
					printf " %8s", value[i]
				printf "\n"
			}
			printf "%-8s %-6s %8s", name[1], name[2], $(NF - 1)
			for (i = 2; i <= n; i += 2)
				printf " %8s", value[i]
			printf "%s\n", /^ok/ ? "" : "   FAILED"
		}' "${files[@]}"
}

if [ -n "${ROWS//[^0]/}" ]; then
	"$ROOT/scripts/unpatched.sh"
	TREE=build/unpatched "$ROOT/scripts/kernel.sh" y
fi

rm -rf "$OUT/vmm"
mkdir -p "$ADD"
qemu
guest
guide

status=0
vm build/unpatched "${ROWS//[^0]/}" >"$OUT/vmm/base.out" 2>&1 &
base=$!
vm "${TREE:-}" "${ROWS//0/}" || status=$?
wait "$base" || status=$?
cat "$OUT/vmm/base.out"
say "$(run "$QEMU_ROOT" "$QEMU" --version | head -n 1)
seconds for all and to boot, and bogo operations of stress-ng in the guest:"
table
exit "$status"
