#!/bin/bash
# Run the tests of vm/tests in the VM, in every configuration that the tree has.
#
# ROWS=13 runs only those rows, TESTS='guest_memfd*' only programs that match.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

rows=${ROWS:-1234}

if [ "$(tree_rows)" != 1234 ]; then
	rows=$(tree_rows)
	say "this tree does not have all options yet: only rows $rows can run"
fi

# selected: the tests to run, as lines ROWS SECONDS PROGRAM ARGUMENTS...
selected() {
	local kind at program rest

	while read -r kind at program rest; do
		# shellcheck disable=SC2053 # TESTS is a pattern
		[[ $kind = test && ${rest%% *} = ${TESTS:-*} ]] || continue
		echo "$at $program $rest"
	done <"$ROOT/vm/tests"
}

# log_checks ROW: the lines of a plan that look at the kernel's log
log_checks() {
	local kind at count text

	while read -r kind at count text; do
		[[ $kind = log && $at = *$1* && -z ${TESTS:-} ]] || continue
		# init writes the name to the log, i.e. it can't have the text
		# shellcheck disable=SC2016 # the shell in the VM expands this
		printf 'run\trow %s: log\t10\tn=$(dmesg | grep -c "%s"); echo "%s: wanted %s messages, got $n"; [ "$n" = %s ]\n' \
			"$1" "$text" "$text" "$count" "$count"
	done <"$ROOT/vm/tests"
}

# programs: those to run, without arguments
programs() {
	selected | cut -d' ' -f3 | sort -u
}

programs | sed '\,^base/,d' | xargs -r "$ROOT/scripts/selftests.sh"
programs | sed -n 's,^base/,,p' | xargs -r "$ROOT/scripts/unpatched.sh"

plan=$OUT/vm/test
mkdir -p "$OUT/vm"
for ((i = 0; i < ${#rows}; i++)); do
	row=${rows:i:1}
	row_plan "$row"
	log_checks "$row"
	selected | while read -r at seconds command; do
		[[ $at = *$row* ]] || continue
		printf 'run\trow %s: %s\t%d\t/tests/%s\n' "$row" "$command" "$seconds" "$command"
	done
done >"$plan"
exec "$ROOT/scripts/vm.sh" -p "$plan"
