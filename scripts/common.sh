# shellcheck shell=bash
#
# What the scripts share: where things are, how they speak, and how they run a
# step that takes long.
#
# SRC is the source tree that is built: build/src, to which queue.sh applies
# patches/, or another one (TREE=), for a developer.  Everything built from a
# tree is below OUT; mutants.sh has one of its own.

set -Eeuo pipefail
export LC_ALL=C.UTF-8

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$ROOT/build
REPO=$BUILD/src

if [ -n "${TREE:-}" ]; then
	SRC=$(cd "$ROOT" && realpath "$TREE")
	OUT=$BUILD/tree-$(basename "$SRC")
else
	SRC=$REPO
	OUT=${GMEM_OUT:-$BUILD}
fi
LOG=$OUT/log
mkdir -p "$LOG"

say() {
	printf '%s\n' "$*"
}

# Ends with a status of its own, which the trap knows, so that no failure is
# silent and none is told twice.
die() {
	printf 'error: %s\n' "$*" >&2
	exit 3
}
trap '[ $? = 3 ] || [ "$BASHPID" != $$ ] || echo "error: $0, line $LINENO: failed unexpectedly" >&2' ERR

# A script prints the comment at its top as its help.
usage() {
	sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

case "${1:-}" in
-h|--help)
	usage
	exit 0
	;;
esac

# One at a time: what is below OUT has one writer.  Children inherit the lock.
if [ -z "${GMEM_LOCK:-}" ]; then
	exec 9>>"$OUT/lock"
	if ! flock -n 9; then
		say "another run is using $OUT; waiting for it to end"
		flock 9
	fi
	export GMEM_LOCK=$OUT
fi

# patches_only: for what looks at patches/ and builds them, whatever TREE= says
patches_only() {
	[ -z "${TREE:-}" ] || die "this is for patches/, not for TREE=; run make export first"
}

# as_root COMMAND...: with sudo, which asks before a step hides what it says
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "only root can do this: $*"
	fi
}

# step LOG-NAME TEXT COMMAND...: run COMMAND with its output in a log, show how
# long it takes, and if it fails, what matters of the log.
step() {
	local log=$LOG/$1.log text=$2 start=$SECONDS interval=30 ticker status=0

	shift 2
	[ ! -t 1 ] || interval=1
	(
		exec 9>&-
		trap '' INT
		while sleep "$interval" >/dev/null 2>&1; do
			kill -0 $$ 2>/dev/null || exit 0
			if [ -t 1 ]; then
				printf '\r%s ... %d s ' "$text" $((SECONDS - start))
			else
				printf '%s ... %d s\n' "$text" $((SECONDS - start))
			fi
		done
	) &
	ticker=$!
	[ ! -t 1 ] || printf '%s ... ' "$text"
	("$@") >"$log" 2>&1 </dev/null || status=$?
	kill "$ticker" 2>/dev/null || true
	wait "$ticker" 2>/dev/null || true
	[ ! -t 1 ] || printf '\r\033[K'
	if [ "$status" != 0 ]; then
		say "$text: failed after $((SECONDS - start)) s" >&2
		grep -nE 'error|Error|warning: |undefined reference|No rule|No such|\*\*\*|^E: ' "$log" |
			tail -n 20 >&2 || tail -n 20 "$log" >&2
		die "see the whole log in ${log#"$ROOT"/}"
	fi
	say "$text: $((SECONDS - start)) s"
}

# time_factor VARIANT...: how many times as long everything takes with the kernels
# of these variants, according to the fragments of config/ that they consist of, and
# to SLOW=, for machines that are slow or busy
time_factor() {
	local fragment factor

	factor=$(for fragment in $(printf '%s\n' "${@//-/$'\n'}" | sort -u); do
		[ ! -e "$ROOT/config/$fragment.config" ] ||
			sed -n 's/^#time //p' "$ROOT/config/$fragment.config"
	done | sort -n | sed '$!d')
	echo $((${factor:-1} * ${SLOW:-1}))
}

# row_variant ROW: the variant of the kernel that a row of vm/tests needs.  With
# DEBUG=, it is one that also has these fragments of config/.
row_variant() {
	awk -v row="$1" -v debug="${DEBUG:+-$DEBUG}" '
		$1 == "row" && $2 == row { print $3 debug; found = 1 }
		END { exit !found }' "$ROOT/vm/tests" || die "vm/tests has no row $1"
}

# row_plan ROW: the line of a plan that loads KVM as a row of vm/tests says.
# A tree without the parameter loads KVM without.
row_plan() {
	local variant value

	variant=$(row_variant "$1")
	value=$(awk -v row="$1" '$1 == "row" && $2 == row { print $4 }' "$ROOT/vm/tests")
	grep -q parmtype=gmem_in_place_conversion "$OUT/kernel-$variant/arch/x86/kvm/kvm.ko" || value=-
	printf 'kvm\trow %s\t%s\t%s\n' "$1" "$variant" "$value"
}

# tree_rows: the rows of vm/tests that the tree has the options for.  Without its
# patches it always tracks PRIVATE per VM: that is row 3.
tree_rows() {
	if ! grep -q '^config KVM_VM_MEMORY_ATTRIBUTES' "$SRC/arch/x86/kvm/Kconfig"; then
		echo 3
	elif ! grep -q '^module_param(gmem_in_place_conversion' "$SRC/virt/kvm/kvm_main.c"; then
		echo 23
	else
		echo 1234
	fi
}

# switch_to COMMIT: make build/src match it.  Only files that come out differently
# are written: what does not change is not compiled again.
switch_to() {
	local target

	target=$(git -C "$REPO" rev-parse "$1^{commit}")
	git -C "$REPO" update-ref refs/gmem/target "$target"
	git -C "$REPO" read-tree -m -u HEAD "$target"
	git -C "$REPO" update-ref --no-deref HEAD "$target"
	git -C "$REPO" update-ref -d refs/gmem/target
}

# finish_switch: if one was interrupted; else false
finish_switch() {
	git -C "$REPO" rev-parse -q --verify refs/gmem/target >/dev/null || return
	rm -f "$REPO/.git/index.lock"
	git -C "$REPO" reset -q --hard refs/gmem/target &&
		git -C "$REPO" update-ref -d refs/gmem/target
}

# work_tree DIRECTORY COMMIT: make it a work tree of build/src with that commit and
# nothing else.  Files that are the same are not written again.
work_tree() {
	if [ ! -e "$1/.git" ]; then
		git -C "$REPO" worktree prune
		git -C "$REPO" worktree add -f -q --detach "$1" "$2"
	else
		git -C "$1" am --quit 2>/dev/null || true
		git -C "$1" checkout -q --force --detach "$2"
		git -C "$1" clean -q -dfx
	fi
}

# copy_kernel FROM TO: what was built, to build on, not complete until it is there.
# objtool's build has absolute paths in its commands, and all depends on objtool.
copy_kernel() {
	cp -a "$1" "$2.new" &&
		find "$2.new/tools" -name '.*.cmd' -exec sed -i "s,$1\([^-a-z0-9]\|\$\),$2\1,g" {} + &&
		rm -f "$2.new"/*-id && mv "$2.new" "$2"
}

# stop_background: what runs there, each with a process group of its own
beside=() meanwhile=''
stop_background() {
	local pid

	for pid in "${beside[@]}" $meanwhile; do
		kill -- "-$pid" 2>/dev/null || true
	done
}

# side_by_side COMMAND ARGUMENT...: run COMMAND with each argument, two at a time;
# fails if one failed
side_by_side() {
	local command=$1 argument pid status=0

	shift
	trap stop_background EXIT
	while [ $# -gt 0 ]; do
		# Gives jobs a process group
		set -m
		for argument in "${@:1:2}"; do
			"$command" "$argument" </dev/null &
			beside+=($!)
		done
		set +m
		for pid in "${beside[@]}"; do
			wait "$pid" || status=1
		done
		beside=()
		shift $(($# > 1 ? 2 : 1))
	done
	return "$status"
}

# meanwhile LOG-NAME COMMAND...: start COMMAND in the background, while the VM, which
# has use for little more than one CPU, runs.  To build is to be done with nice: the VM
# goes first.
meanwhile() {
	meanwhile_log=$LOG/$1.log
	shift
	setsid "$@" >"$meanwhile_log" 2>&1 </dev/null &
	meanwhile=$!
	trap stop_background EXIT
}

# wait_meanwhile: until that is done, and show what it said; fails if it failed
wait_meanwhile() {
	local status=0

	# the rest of it can have all of the time
	renice -n 0 -g "$meanwhile" >/dev/null 2>&1 || true
	step wait "finish what was begun meanwhile" tail --pid="$meanwhile" -f /dev/null
	wait "$meanwhile" || status=$?
	meanwhile=''
	grep -vF ' ... ' "$meanwhile_log" || true
	return "$status"
}

# selftests_id: changes if a test does, which the kernel's build-id does not
selftests_id() {
	git -C "$SRC" rev-parse HEAD:tools/testing/selftests
}

# queue_files: the patches, in order
queue_files() {
	sed 's/#.*//' "$ROOT/patches/series" | awk 'NF { print $1 }'
}

# release COMMIT: the version that its Makefile has
release() {
	git -C "$REPO" show "$1:Makefile" |
		awk '/^(VERSION|PATCHLEVEL|SUBLEVEL) = / { v = v "." $3 } END { print substr(v, 2) }'
}

# complain LOG: fails, and shows it, if a kernel's log has what is in vm/problems
complain() {
	local first list=$ROOT/vm/problems

	first=$(tr -d '\r' <"$1" | grep -nE -f <(grep -vE '^(#|except |$)' "$list") |
		grep -vE -f <(sed -n 's/^except //p' "$list") | cut -d: -f1 | sed -n 1p) || return 0
	say "The kernel complained:"
	sed -n "$((first > 2 ? first - 2 : 1)),$((first + 57))s/^/    /p" "$1"
	return 1
}

# guide_code HEADING: the C code in a section of the guide for authors of VMMs
guide_code() {
	awk -v heading="$1" '
		$0 == heading { on = 1; getline; next }
		/^=+$/ { on = 0 }
		/^\.\. code-block:: c$/ { block = on; next }
		/^[^ ]/ { block = 0 }
		block { sub(/^  /, ""); print }' "$SRC/Documentation/virt/kvm/guest-memfd.rst"
}
