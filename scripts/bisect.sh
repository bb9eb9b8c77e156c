#!/bin/bash
# Apply the series patch by patch, and see that each step builds, boots and works
# (scripts/smoke.sh).  Prints a table.
#
# A step that passed is not repeated until its source changes, nor is one that
# only documents: after an interruption, or an edit, this goes on from there.
#
# PATCHES=19-24,60- does only these.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
[ $# = 0 ] || { usage >&2; exit 2; }
patches_only

# selected NUMBER: whether PATCHES= has it
selected() {
	local range first last

	[ -n "${PATCHES:-}" ] || return 0
	for range in ${PATCHES//,/ }; do
		first=${range%-*} last=${range#*-}
		[ "$1" -lt "$first" ] || [ "$1" -gt "${last:-$1}" ] || return 0
	done
	return 1
}

[[ ${PATCHES:-1} =~ ^[0-9]+(-[0-9]*)?(,[0-9]+(-[0-9]*)?)*$ ]] ||
	die "PATCHES= has to be like 19-24,60- and is $PATCHES"

trap '"$ROOT/scripts/queue.sh"' EXIT
mapfile -t commits < <(git -C "$REPO" rev-list --reverse refs/tags/base..refs/heads/queue)
passed=0 failed=0
printf '%4s  %-74s  %-8s%5s  %s\n' '' patch result s 'smoke test'
for ((i = 1; i <= ${#commits[@]}; i++)); do
	selected "$i" || continue
	printf '%4d  %-74.74s  ' "$i" "$(git -C "$REPO" log -1 --format=%s "${commits[i - 1]}")"
	if "$ROOT/scripts/smoke.sh" "bisect-$i" "${commits[i - 1]}"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done
[ $((passed + failed)) -gt 0 ] || die "the series has no patch $PATCHES"
say "$passed passed, $failed failed, $SECONDS s"
[ "$failed" = 0 ] || die "not all patches work"
