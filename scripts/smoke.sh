#!/bin/bash
# See that a commit of build/src builds, boots and works, and print one line:
#
#   scripts/smoke.sh NAME COMMIT
#
# It is built in each value of VM_MEMORY_ATTRIBUTES that it has.  In the VM, KVM is
# loaded as in each row of vm/tests that it has the options for, to run the programs
# that vm/tests lists for this, as far as the commit has them.  Parameters are given
# even where a row relies on the default, which a later patch may be the one to set.
#
# Documentation aside, what did not change since it passed is not repeated.  This
# leaves build/src at COMMIT, for scripts/queue.sh to bring back.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
[ $# = 2 ] || { usage >&2; exit 2; }

PASSED=$BUILD/smoke-passed

# programs ROW: lines SECONDS PROGRAM ARGUMENTS...
programs() {
	local kind at seconds program arguments

	while read -r kind at seconds program arguments; do
		[[ $kind = smoke && $at = *$1* ]] || continue
		[ -e "$SRC/tools/testing/selftests/kvm/${program#base/}.c" ] || continue
		echo "$seconds $program $arguments"
	done <"$ROOT/vm/tests"
}

# smoke COMMIT
smoke() {
	local rows row seconds command plan=$OUT/vm/smoke

	finish_switch || true
	switch_to "$1"
	rows=$(tree_rows)
	if [ "$rows" = 3 ]; then
		"$ROOT/scripts/kernel.sh" y
	else
		"$ROOT/scripts/kernel.sh" n y
	fi
	mkdir -p "$OUT/vm"
	while read -r row; do
		row_plan "$row" | sed 's/\tdefault-/\t/'
		while read -r seconds command; do
			printf 'run\trow %s: %s\t%d\t/tests/%s\n' \
				"$row" "$command" $((seconds * ${SLOW:-1})) "$command"
		done < <(programs "$row")
	done < <(fold -w 1 <<<"$rows") >"$plan"
	sed -n 's,.*\t/tests/\([^ ]*\).*,\1,p' "$plan" | sort -u >"$OUT/vm/programs"
	sed '/^base/d' "$OUT/vm/programs" | xargs "$ROOT/scripts/selftests.sh"
	sed -n 's,^base/,,p' "$OUT/vm/programs" | xargs -r "$ROOT/scripts/unpatched.sh"
	"$ROOT/scripts/vm.sh" -p "$plan"
}

# What the result depends on
smoke_id() {
	gcc --version | head -n 1
	(cd "$ROOT" && sha256sum scripts/{kernel,selftests,smoke,vm,judge}.sh \
		config/{vm,attrs-*}.config vm/init.c vm/problems)
	grep -E '^(row|smoke) ' "$ROOT/vm/tests"
	git -C "$REPO" rev-parse 'refs/tags/base^{commit}'
	git -C "$REPO" ls-tree "$1" | grep -v $'\tDocumentation$'
}

# result WORD SECONDS TEXT
result() {
	printf '%-8s%5s  %.100s\n' "$1" "$2" "$3"
}

# On a terminal: for how long it has been running, where the result is to be
tick() {
	while sleep 1; do
		kill -0 $$ 2>/dev/null || exit 0
		printf '\0337%-8s%5s\0338' '...' "$SECONDS"
	done
}

commit=$2 log=$LOG/smoke-$1.log
passed=$PASSED/$(smoke_id "$commit" | sha256sum | cut -d' ' -f1)
mkdir -p "$PASSED"
if [ -e "$passed" ]; then
	result ok - "$(cat "$passed"), not changed since"
	exit
fi
ticker=''
if [ -t 1 ]; then
	(exec 9>&-; trap '' INT; tick) &
	ticker=$!
fi
# Not as a condition: in one, bash goes on after commands that fail
set +e
(set -e; smoke "$commit") >"$log" 2>&1 </dev/null
status=$?
set -e
[ -z "$ticker" ] || { kill "$ticker"; wait "$ticker" || true; } 2>/dev/null
if [ "$status" = 0 ]; then
	grep -E '^[0-9]+ passed, ' "$log" | tail -n 1 >"$passed.new"
	mv "$passed.new" "$passed"
	result ok "$SECONDS" "$(cat "$passed")"
else
	result FAILED "$SECONDS" "$(grep -hm 1 -E '^FAILED|(error|ERROR): [^s]|[1-9][0-9]* failed|^The kernel complained' "$log" || tail -n 1 "$log"), see ${log#"$ROOT/"}"
	exit 3
fi
