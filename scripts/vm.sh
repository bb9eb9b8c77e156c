#!/bin/bash
# Boot the test VM, run programs in it, and judge what happened.
#
#   scripts/vm.sh [-r ROW] [-t SECONDS] [-a FILE]... [-d DIRECTORY] COMMAND...
#       run one shell command line, with KVM as row ROW of vm/tests has it;
#       its output is shown
#   scripts/vm.sh -p PLAN [-o] [-a FILE]... [-d DIRECTORY]
#       do what a plan says (see vm/init.c); shows one line for each program, or
#       with -o their output
#   scripts/vm.sh [-r ROW] [-a FILE]... [-d DIRECTORY] -i
#       a shell in the VM
#
# -1 is for benchmarks: one CPU, emulated, that counts instructions as time.
# -l is for guests of KVM that take interrupts, such as Linux.
# -a FILE puts a file into the VM's /bin, -d DIRECTORY what a directory contains
# into its root.  /tests has the selftests that the command or plan names.
# ACCEL=tcg or ACCEL=kvm overrides how it is run.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

row=1 seconds=600 one_cpu='' linux_guest='' plan='' show=results interactive='' add=() dir=''
while getopts 1lr:t:a:d:p:oi opt; do
	case $opt in
	1) one_cpu=y ;;
	l) linux_guest=y ;;
	r) row=$OPTARG ;;
	t) seconds=$OPTARG ;;
	a) add+=("$(realpath "$OPTARG")") ;;
	d) dir=$(realpath "$OPTARG") ;;
	p) plan=$(realpath "$OPTARG") ;;
	o) show=output ;;
	i) interactive=y ;;
	*) usage >&2; exit 2 ;;
	esac
done
shift $((OPTIND - 1))

VM=$OUT/vm
NAME=$(basename "${plan:-command}")
CONSOLE=$LOG/vm-$NAME.console.log
TAP=$LOG/vm-$NAME.tap
RESETS=$LOG/vm-$NAME.resets.log	# what QEMU knows of a machine that died silently
mkdir -p "$VM"

# static SOURCE: compile a program of ours for the VM.  Another VM may be using it.
static() {
	local to

	to=$VM/$(basename "$1" .c)
	gcc -Wall -Wextra -Werror -O2 -static -s -o "$to-$NAME" "$1"
	mv "$to-$NAME" "$to"
}

# initramfs PLAN FILE...: what the VM boots with
initramfs() {
	local root=$VM/root-$NAME variant program module

	rm -rf "$root"
	mkdir -p "$root"/{bin,tests}
	cp "$VM/init" "$root/init"
	cp "$1" "$root/plan"
	cp "$ROOT/vm/problems" "$root/problems"
	cp "$(command -v busybox)" "$root/bin/busybox"
	busybox --list | grep -vx busybox | (cd "$root/bin" && xargs -n 1 ln -s busybox)
	# Selftests call this to explain a failed assertion; say how to do it here
	cat >"$root/bin/addr2line" <<-EOT
		#!/bin/sh
		exe=\$(readlink "\$3")
		shift 4
		echo "addr2line -sfpai -e ${OUT#"$ROOT"/}\$exe \$*"
	EOT
	chmod +x "$root/bin/addr2line"
	# What was not built is missing in the VM too, and fails there
	for variant in $(variants "$1"); do
		mkdir -p "$root/modules/$variant"
		for module in virt/lib/irqbypass arch/x86/kvm/{kvm,kvm-amd,kvm-intel} \
			lib/test_maple_tree; do
			[ -e "$OUT/kernel-$variant/$module.ko" ] || continue
			program=$(basename "$module")
			cp "$OUT/kernel-$variant/$module.ko" \
				"$root/modules/$variant/${program//-/_}.ko"
		done
	done
	{ grep -o '/tests/[^[:space:];|&]*' "$1" || true; } | sort -u | while read -r program; do
		[ -x "$OUT$program" ] || continue
		mkdir -p "$(dirname "$root$program")"
		case $program in
		*.sh) cp "$OUT$program" "$root$program" ;;
		*) strip -o "$root$program" "$OUT$program" ;;
		esac
	done
	shift
	[ $# = 0 ] || cp "$@" "$root/bin/"
	[ -z "$dir" ] || cp -a "$dir/." "$root/"
	(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$VM/initramfs-$NAME"
	rm -rf "$root"
}

# variants PLAN: those whose modules it loads
variants() {
	awk -F '\t' '$1 == "kvm" { print $3 }' "$1" | sort -u
}

# kernel PLAN: the one to boot.  The modules of all variants have to fit.
kernel() {
	local variant first=''

	for variant in $(variants "$1"); do
		[ -e "$OUT/kernel-$variant/vmlinux" ] ||
			die "kernel-$variant is not built; run: make kernel"
		if [ -z "$first" ]; then
			first=$variant
		else
			cmp -s "$OUT/kernel-$first/vmlinux" "$OUT/kernel-$variant/vmlinux" ||
				die "vmlinux of kernel-$first and kernel-$variant differ: no single boot can load the modules of both"
		fi
	done
	echo "$OUT/kernel-$first/vmlinux"
}

# qemu ACCEL TIME-OUT KERNEL OPTION...
qemu() {
	local accel=$1 limit=$2 kernel=$3 cpu=host machine

	shift 3
	# One thread for all CPUs: with several, QEMU 7.2 once in a while enters a
	# guest with the RIP of the host, which ends in an oops or an endless loop
	[ "$accel" = kvm ] || { accel=tcg,thread=single; cpu=max,+svm,+npt; }
	read -ra machine <<-EOT
		-m 4G -smp 2,sockets=2 \
		-object memory-backend-ram,id=ram0,size=2G -numa node,memdev=ram0,cpus=0 \
		-object memory-backend-ram,id=ram1,size=2G -numa node,memdev=ram1,cpus=1
	EOT
	# QEMU's SVM does not forget which interrupt VMRUN has injected, and injects
	# it again if a CPU has to leave its loop for the sake of another one
	[ "$accel" = kvm ] || [ -z "$linux_guest" ] || read -ra machine <<<'-m 4G -smp 1'
	if [ -n "$one_cpu" ]; then
		# Without erms and fsrm memory is cleared and copied by words.  Each
		# repetition of an instruction counts, and bytes would cost too much.
		accel=tcg,thread=single cpu+=,-erms,-fsrm
		read -ra machine <<<'-m 4G -smp 1 -icount shift=0,sleep=off'
	fi
	# QEMU ends when this script does, whatever ends it: hence the exec
	exec setpriv --pdeathsig TERM timeout --foreground -k 10 "$limit" \
		qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none \
		-machine q35 -accel "$accel" -cpu "$cpu" "${machine[@]}" \
		-kernel "$kernel" -initrd "$VM/initramfs-$NAME" \
		-d cpu_reset -D "$RESETS" \
		-append "$append" \
		"$@" 9>&-
}

# choose_accel PLAN: KVM, where it is seen to run a guest which runs a guest
choose_accel() {
	local id verdict=tcg

	[ -z "$one_cpu" ] || { echo tcg; return; }
	[ -z "${ACCEL:-}" ] || { echo "$ACCEL"; return; }
	id=$(cat /proc/sys/kernel/random/boot_id)
	if [ "$(head -n 1 "$VM/accel" 2>/dev/null)" != "$id" ]; then
		if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
			say "trying whether nested KVM works here, 20 s at most" >&2
			grep -m 1 '^kvm' "$1" >"$VM/trial-plan"
			printf 'run\ttrial\t10\ttrial\n' >>"$VM/trial-plan"
			static "$ROOT/vm/trial.c"
			initramfs "$VM/trial-plan" "$VM/trial"
			if qemu kvm 20 "$(kernel "$VM/trial-plan")" -serial null -serial stdio \
				</dev/null 2>"$LOG/vm-trial.log" | tee "$LOG/vm-trial.tap" |
				awk '/^not ok/ { bad = 1 } /^#end/ { end = 1 } END { exit bad || !end }'
			then
				verdict=kvm
			fi
		fi
		printf '%s\n' "$id" "$verdict" >"$VM/accel"
	fi
	sed -n 2p "$VM/accel"
}

if [ -z "$plan" ]; then
	plan=$VM/command
	row_plan "$row" >"$plan"
	if [ -n "$interactive" ]; then
		echo shell >>"$plan"
	else
		[ $# -gt 0 ] || { usage >&2; exit 2; }
		name="row $row: $*"
		printf 'run\t%.70s\t%d\t%s\n' "$name" "$seconds" "$*" >>"$plan"
	fi
	show=output
fi

# What is a hang depends on how fast the kernel is
mapfile -t variants < <(variants "$plan")
factor=$(time_factor "${variants[@]}")
# An emulated machine that waits for its turn may miss the ticks that the kernel looks
# for when it boots, hence no_timer_check
append="console=ttyS0 ignore_loglevel printk.devkmsg=on no_timer_check"
# QEMU's SVM once in a while forgets an interrupt that is pending when a guest runs.  It
# remembers when the next one comes: the timer must not wait for the one that was lost
[ -z "$linux_guest" ] || append+=" highres=off nohz=off"
append+=" watchdog_thresh=$((factor < 2 ? 30 : 60))"
append+=" workqueue.watchdog_thresh=$((60 * factor))"
append+=" sysctl.kernel.hung_task_timeout_secs=$((60 * factor))"
append+=" rcupdate.rcu_cpu_stall_timeout=$((factor < 5 ? 60 * factor : 300))"

static "$ROOT/vm/init.c"
accel=$(choose_accel "$plan")
kernel=$(kernel "$plan")
initramfs "$plan" "${add[@]}"

if [ -n "$interactive" ]; then
	say "a shell with KVM as in row $row; \"poweroff -f\" or Ctrl-A X ends it"
	qemu "$accel" 1d "$kernel" -serial mon:stdio -serial "file:$TAP"
fi

# All programs may use up their time, and some is for the rest.
limit=$(awk -F '\t' -v factor="$factor" '
	{ s += $1 == "run" ? $3 + 30 : 60 * factor }
	END { print s + 120 * factor }' "$plan")
say "VM: $accel, at most $limit s; kernel's log in ${CONSOLE#"$ROOT"/}"
rm -f "$CONSOLE" "$TAP" "$RESETS"
status=(0 0 0)
qemu "$accel" "$limit" "$kernel" -serial "file:$CONSOLE" -serial stdio \
	</dev/null 2>"$LOG/vm-$NAME.qemu.log" |
	tee "$TAP" | "$ROOT/scripts/judge.sh" "$show" || status=("${PIPESTATUS[@]}")

bad=''
[ "${status[2]}" = 0 ] || bad=y
case ${status[0]} in
0) ;;
124|137) bad="the VM did not end within $limit s and was stopped" ;;
*) bad="QEMU ended with status ${status[0]}: $(tail -n 3 "$LOG/vm-$NAME.qemu.log")" ;;
esac
if ! complain "$CONSOLE"; then
	bad="the kernel's log has problems"
elif ! grep -q 'gmem: end of results' "$CONSOLE" && [[ ! $bad || $bad = y ]]; then
	if grep -q 'Triple fault' "$RESETS"; then
		bad="the VM's processor had a triple fault, with no word from the kernel"
	else
		bad="the kernel's log is not complete; it ends with:
$(tail -n 5 "$CONSOLE")"
	fi
fi
[ -z "$bad" ] || {
	[ "$bad" = y ] || say "$bad"
	die "failed; kernel's log: ${CONSOLE#"$ROOT"/}, report: ${TAP#"$ROOT"/}"
}
