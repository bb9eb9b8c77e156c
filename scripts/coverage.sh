#!/bin/bash
# Which of the lines and branches that the series adds or changes do the tests run?
#
# Runs all of vm/tests with a kernel that counts how often each line runs, and with
# which allocations can be made to fail.  Gets the counters out of the VM, and reports
# what is left when all but the lines that differ from the base is dropped: as text,
# in build/coverage/report, and as HTML.
#
# Fails if too few lines were run, or if one that was not is not listed, with the
# reason, in vm/uncovered.  The tests are run again only if something changed.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
[ $# = 0 ] || { usage >&2; exit 2; }

# Percentage of the lines
REQUIRED=95

export DEBUG=debug-fault-gcov
COVERAGE=$OUT/coverage
DATA=$COVERAGE/data
mkdir -p "$COVERAGE"

# What the counters depend on
run_id() {
	cat "$OUT"/kernel-{n,y}-"$DEBUG"/build-id
	selftests_id
	cd "$ROOT" && sha256sum vm/{init.c,tests,problems} scripts/{test,vm,judge}.sh
}

# collect: the counters that the VM wrote to its report, with what the compiler
# wrote about the code, as the tools want them
collect() {
	local path=''

	rm -rf "$DATA"
	mkdir "$DATA"
	(cd "$OUT" && find kernel-{n,y}-"$DEBUG" -name '*.gcno' -exec cp --parents {} "$DATA" \;)
	sed -n '/^#start gcov/,/^ok/s/^# //p' "$LOG/vm-coverage.tap" | while read -r word rest; do
		if [ "$word" = gcda ]; then
			path=$DATA/${rest#"${OUT#/}/"}
			: >"$path.base64"
		else
			echo "$word" >>"$path.base64"
		fi
	done
	find "$DATA" -name '*.base64' | while read -r path; do
		base64 -d "$path" | gunzip >"${path%.base64}"
		rm "$path"
	done
}

# capture: all lines of all files that can be counted, of both variants.  The module
# for Intel isn't loaded, i.e. has no counters.
capture() {
	local lcov=(lcov --quiet --rc lcov_branch_coverage=1)
	local from=(--capture --directory "$DATA" --base-directory "$OUT/kernel-n-$DEBUG")

	"${lcov[@]}" "${from[@]}" --initial --output-file "$COVERAGE/none.info" &&
		"${lcov[@]}" "${from[@]}" --output-file "$COVERAGE/each.info" &&
		"${lcov[@]}" --add-tracefile "$COVERAGE/none.info" \
			--add-tracefile "$COVERAGE/each.info" --output-file "$COVERAGE/all.info"
}

# changed: lines FILE NUMBER for all that the series adds or changes, tests aside
changed() {
	git -C "$SRC" diff -U0 --no-renames refs/tags/base HEAD -- '*.[ch]' ':!tools' ':!virt/kvm/tests' ':!lib/test_*' |
		awk '
			/^\+\+\+ / { file = substr($2, 3) }
			/^@@/ {
				n = split(substr($3, 2), a, ",") > 1 ? a[2] : 1
				for (i = 0; i < n; i++)
					print file, a[1] + i
			}'
}

# Files of ours that nothing was counted in, although they are compiled
uncounted() {
	cut -d' ' -f1 "$COVERAGE/changed" | sort -u | grep '\.c$' | while read -r file; do
		case $file in
		arch/x86/*|virt/*|lib/*) ;;
		*) continue ;;
		esac
		grep -qxF "SF:$SRC/$file" "$COVERAGE/all.info" || echo "$file"
	done
}

report() {
	awk -v required="$REQUIRED" -v src="$SRC/" -v series="$COVERAGE/series.info" \
		-f "$ROOT/scripts/coverage.awk" \
		"$ROOT/vm/uncovered" "$COVERAGE/changed" "$COVERAGE/all.info"
}

html() {
	genhtml --quiet --branch-coverage --legend --title "lines that the series adds or changes" \
		--prefix "$SRC" --output-directory "$COVERAGE/html" "$COVERAGE/series.info"
}

# What is counted names the folder that it was built in.  For vmlinux to be the same,
# the second kernel has to begin as a copy of the first.
"$ROOT/scripts/kernel.sh" "n-$DEBUG"
cmp -s "$OUT"/kernel-{n,y}-"$DEBUG"/vmlinux || rm -rf "$OUT/kernel-y-$DEBUG"
"$ROOT/scripts/kernel.sh" "y-$DEBUG"
id=$(run_id | sha256sum)
if [ "$(cat "$COVERAGE/run-id" 2>/dev/null)" != "$id" ]; then
	rm -f "$COVERAGE/run-id"
	ROWS=1234 TESTS='' PLAN=coverage "$ROOT/scripts/test.sh" ||
		die "coverage is of no interest unless all tests pass"
	step collect "collect the counters" collect
	echo "$id" >"$COVERAGE/run-id"
fi
step capture "read the counters" capture
changed >"$COVERAGE/changed"
uncounted=$(uncounted)
[ -z "$uncounted" ] || die "config/gcov.config does not have these files of the series:" "$uncounted"

status=0
report >"$COVERAGE/report" || status=$?
rm -rf "$COVERAGE/html"
step genhtml "write HTML" html
cat "$COVERAGE/report"
say "${COVERAGE#"$ROOT/"}/report, ${COVERAGE#"$ROOT/"}/html/index.html"
[ "$status" = 0 ] || die "not enough is covered, or vm/uncovered does not say why"
