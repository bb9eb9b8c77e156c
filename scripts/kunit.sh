#!/bin/bash
# Run the KUnit tests of the series, scripts/kunit.sh [-l LOG].  The kernel's own
# tools/testing/kunit/kunit.py configures and builds a small kernel with them, and
# judges what it printed when it was booted.
#
# It is booted here, not by kunit.py, which tries KVM first.  The VM is emulated,
# and its CPU has no virtualization: the tests need none.
#
# With -l, only judges what the kernel wrote to LOG when it loaded a KVM that has
# the tests, see config/debug.config.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
LOADED=''
[ "${1:-}" != -l ] || { LOADED=${2:?which log?}; shift 2; }
[ $# = 0 ] || { usage >&2; exit 2; }

# For what it exports, configure and build_id
# shellcheck source=scripts/kernel.sh
. "$ROOT/scripts/kernel.sh"

# Running kunit.py is not to leave anything in the source tree
export PYTHONDONTWRITEBYTECODE=1

TESTS_DIR=virt/kvm/tests
KUNIT=$OUT/kunit
CONSOLE=$LOG/kunit.console.log
RESULT=$LOG/kunit.result
LIMIT=$((600 * ${SLOW:-1}))

kunit_py() {
	python3 "$SRC/tools/testing/kunit/kunit.py" "$@"
}

# kunit.py starts from what an x86 kernel has by default, which takes long to
# build.  So give it all of a configuration that has just what is needed.
build_kunit() {
	configure "$KUNIT/tiny" "$SRC/$TESTS_DIR/.kunitconfig" "$ROOT/config/kunit.config" &&
		kunit_py build --arch=x86_64 --build_dir="$KUNIT" --jobs="$(nproc)" \
			--kunitconfig="$KUNIT/tiny/.config" \
			--make_options='CC=ccache gcc' --make_options='HOSTCC=ccache gcc' \
			--make_options=LOCALVERSION=
}

boot() {
	exec setpriv --pdeathsig TERM timeout --foreground -k 10 "$LIMIT" \
		qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none \
		-machine q35 -accel tcg,thread=single -cpu max,-svm,-vmx -m 512M \
		-kernel "$KUNIT/arch/x86/boot/bzImage" \
		-append 'console=ttyS0 panic=-1 kunit.enable=1 kunit_shutdown=reboot' \
		-serial "file:$CONSOLE" 9>&-
}

# count WORD: how many of that the last line of kunit.py has
count() {
	sed -n "s/.*Testing complete\. .*[ ]$1: \([0-9]*\).*/\1/p" "$RESULT" | grep . || echo 0
}

# judge LOG: say what the tests that wrote to it have done; fails if they failed
judge() {
	local counted failed status=0

	kunit_py parse --failed "$1" >"$RESULT" || status=$?
	[ "$status" = 0 ] || cat "$RESULT"
	complain "$1" || status=1
	failed=$(($(count failed) + $(count crashed) + $(count errors)))
	[ "$status" = 0 ] || [ "$failed" -gt 0 ] || failed=1
	counted="$(count passed) $failed $(count skipped)"
	[ -z "${COUNT_TO:-}" ] || echo "$counted" >"$COUNT_TO"
	# shellcheck disable=SC2086 # three words
	printf 'KUnit: %s passed, %s failed, %s skipped\n' $counted
	[ "$status" = 0 ] || die "KUnit failed; kernel's log: ${1#"$ROOT"/}"
}

if [ ! -e "$SRC/$TESTS_DIR/.kunitconfig" ]; then
	say "this tree has no $TESTS_DIR: no KUnit tests to run"
	exit
fi

if [ -n "$LOADED" ]; then
	# Before that, KUnit finds that nothing that is built in has tests
	sed -n '/gmem: load kvm/,$p' "$LOADED" >"$CONSOLE"
	judge "$CONSOLE"
	exit
fi

id=$(build_id; sha256sum "$ROOT"/{scripts/kunit.sh,config/kunit.config})
if [ "$(cat "$KUNIT/build-id" 2>/dev/null)" != "$id" ]; then
	mkdir -p "$KUNIT/tiny"
	rm -f "$KUNIT/build-id"
	step kunit-build "build the kernel for KUnit" build_kunit
	echo "$id" >"$KUNIT/build-id"
fi

rm -f "$CONSOLE"
step kunit-vm "run the KUnit tests in a VM" boot
judge "$CONSOLE"
