#!/bin/bash
# Let static tools look at the series and at this repository; prints a table, and
# below it what they found.
#
# What they say about kernel code counts unless they say it about the base, too,
# in which lines may be elsewhere.  What is meant to be as it is, and why, is in
# scripts/check.except; an exception that nothing needs is an error as well.  A
# check whose input did not change is not repeated.
#
# CHECKS='sparse*' runs only those that match.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
[ $# = 0 ] || { usage >&2; exit 2; }
patches_only

# shellcheck source=scripts/apt.sh
. "$ROOT/scripts/apt.sh"
# For what it exports, fragments and configure
# shellcheck source=scripts/kernel.sh
. "$ROOT/scripts/kernel.sh"

CHECK=$BUILD/check
UNPATCHED=$BUILD/unpatched
EXCEPT=$ROOT/scripts/check.except
SPARSE=$CHECK/sparse
LLVM=-19
PREFIX='maple_tree|lib/buildid|mm/mempolicy|KVM(: (x86(/mmu)?|SEV|TDX|guest_memfd|Documentation|selftests))?'

# A line for each check, in this order: name, and what it looks at
checks='
checkpatch	each patch, --strict
messages	form of commit messages
codespell	messages and additions of patches, harness, README
gcc		x86-64, with W=1
clang		x86-64 and arm64, with W=1
sparse		x86-64 and arm64
selftests	KVM selftests, gcc and clang
coccinelle	semantic patches of the kernel
kernel-doc	comments in code, -Wall
uapi		exported headers compile on their own
abi		layout for 32-bit and 64-bit programs
shellcheck	shell scripts of the harness
harness		its C programs, gcc and clang, -Wall -Wextra
'

patches() {
	cd "$ROOT/patches" && ls [0-9]*.patch
}

# touched TREE PATTERN: files of the series that match and that TREE has
touched() {
	(cd "$REPO" && git diff --name-only refs/tags/base refs/heads/queue) | grep -E "$2" |
		while read -r file; do
			[ ! -e "$1/$file" ] || echo "$file"
		done
}

# new FUNCTION ARGUMENTS...: the lines that FUNCTION prints of the series and
# not of the base, line numbers aside.  What it prints of the base is kept.
new() {
	local base

	base=$CHECK/$(tr -c 'a-z0-9\n' - <<<"$*")-$(base_id "$1").base
	if [ ! -e "$base" ]; then
		"$@" "$UNPATCHED" >"$base.new" || return
		! grep 'failed, see' "$base.new" || return
		mv "$base.new" "$base"
	fi
	"$@" "$REPO" | awk '
		{ key = $0; gsub(/:[0-9]+/, ":", key); gsub(/line [0-9]+/, "line", key) }
		!series { known[key]++; next }
		known[key]-- <= 0' "$base" series=1 -
}

base_id() {
	{
		git -C "$REPO" rev-parse 'refs/tags/base^{commit}'
		git -C "$REPO" diff --name-only refs/tags/base refs/heads/queue
		declare -f "$1" compile kmake
	} | sha256sum | cut -c1-12
}

# messages TREE: compiler or sparse messages among standard input
messages() {
	sed "s,$1/,,g" | grep -E '^[^ ]+:[0-9]+:.*(warning|error): ' | sort -u || true
}

check_checkpatch() {
	local patch

	# A file that git knows here would be checked as source
	cd "$REPO" || return
	while read -r patch; do
		scripts/checkpatch.pl --strict --no-tree --no-summary --terse --show-types \
			"$ROOT/patches/$patch" || true
	done < <(patches | grep -v ^0000) | sed "s,^$ROOT/patches/,," | grep -v '^total: ' || true
}

# What a machine can see of the form of a message
check_messages() {
	local patch

	while read -r patch; do
		git mailinfo "$CHECK/body" /dev/null <"patches/$patch" 2>/dev/null |
			sed -n 's/^Subject: //p' >"$CHECK/subject"
		awk -v patch="$patch" -v prefix="^($PREFIX): [A-Z]" '
			function bad(text) { print patch ": " text }
			NR == FNR {
				if (length > 75)
					bad("subject has " length " columns")
				if ($0 !~ prefix)
					bad("subject has no known prefix, or no capital after it: " $0)
				if (/[.:]$/)
					bad("subject ends with punctuation")
				sub(/^.*: /, "")
				verb = tolower($1)
				if (verb ~ /(ed|ing)$/ && verb !~ /^(need|embed|feed|bring)$/ ||
				    verb ~ /[^s]s$/)
					bad("subject is not in the imperative: " $1)
				next
			}
			length > 75 && !/^ / && !/^[A-Za-z-]+: / && !/^[^ ]+$/ {
				bad("line of " length " columns in the message")
			}
			/^(This (patch|commit|change)|In this (patch|commit)|I |We )/ {
				bad("message talks about itself: " $0)
			}
			/^[A-Z][a-z]+(-[a-z]+)+: / { trailers++; last = $0; next }
			NF { words += NF; sentences += gsub(/[.:?](\)|"| |$)/, ""); last = "" }
			END {
				if (words < 25 || sentences < 2)
					bad("message of " words + 0 " words does not explain why")
				if (!trailers || last == "")
					bad("message does not end with a trailer")
			}' "$CHECK/subject" "$CHECK/body"
	done < <(patches | grep -v ^0000)
	# The cover letter lists all patches
	diff <(sed -n '/^Order$/,/^Who asks/s/^  - //p' patches/0000-cover-letter.patch) \
		<(git -C "$REPO" log --reverse --format=%s refs/tags/base..refs/heads/queue) |
		sed -n 's/^[<>]/0000-cover-letter.patch: list differs:/p'
}

check_codespell() {
	local patch

	rm -rf "$CHECK/text"
	mkdir "$CHECK/text"
	while read -r patch; do
		sed -E '/^[- ]|^@@ |^(index|diff) /{/^---$/!d}' "patches/$patch" >"$CHECK/text/$patch"
	done < <(patches)
	{
		(cd "$CHECK/text" && codespell .) || true
		codespell .ci scripts vm config examples docs/*.md docs/*/*.md ./*.md Makefile || true
	} | sed 's,^\./,,'
}

# kmake TREE OUT COMPILER ARGUMENTS...: kernel-doc is a check of its own, hence
# PYTHON3
kmake() {
	local tree=$1 out=$2 compiler=$3 arch=x86_64 options=()

	shift 3
	[[ $compiler = *-arm64 ]] && arch=arm64
	if [[ $compiler = clang* ]]; then
		options=("LLVM=$LLVM" "CC=ccache clang$LLVM")
	else
		options=("CC=ccache gcc")
	fi
	make -C "$tree" O="$out" ARCH="$arch" "${options[@]}" HOSTCC="ccache gcc" PYTHON3=: \
		LOCALVERSION= -j"$(nproc)" "$@"
}

# set_up TREE OUT COMPILER VARIANT: a configuration with all that is touched, in
# which warnings are no errors
set_up() {
	local tree=$1 out=$2 compiler=$3 files

	mkdir -p "$out"
	if [[ $compiler = *-arm64 ]]; then
		cat "$ROOT"/config/matrix{,-arm64}.config >"$out/asked"
		echo CONFIG_KVM=y >>"$out/asked"
		kmake "$tree" "$out" "$compiler" KCONFIG_ALLCONFIG="$out/asked" allnoconfig
	else
		mapfile -t files < <(fragments "$4")
		(cd "$tree" && cat kernel/configs/tiny{-base,}.config arch/x86/configs/tiny.config \
			"${files[@]}") >"$out/asked"
		printf 'CONFIG_%s=y\n' HEADERS_INSTALL UAPI_HEADER_TEST >>"$out/asked"
		echo '# CONFIG_KVM_WERROR is not set' >>"$out/asked"
		# Fragments may override each other
		kmake "$tree" "$out" "$compiler" KCONFIG_ALLCONFIG="$out/asked" allnoconfig 2>&1 |
			sed '/: override: reassigning to symbol /d'
	fi
}

# compile TREE COMPILER VARIANT [C=2]: all of KVM, as headers change, and what else
# is touched.  Warnings come from compiling, so nothing may be up to date.
compile() {
	local tree=$1 compiler=$2 variant=$3 arch=x86 out targets

	[[ $compiler = *-arm64 ]] && arch=arm64
	out=$CHECK/$(basename "$tree")-$compiler
	mapfile -t targets < <(touched "$tree" '^lib/.*\.c$' | sed 's/c$/o/')
	set_up "$tree" "$out" "$compiler" "$variant" || return
	find "$out"/{arch/$arch/kvm,virt,lib} -name '*.o' -delete 2>/dev/null || true
	kmake "$tree" "$out" "$compiler" -k W=1 "${@:4}" "arch/$arch/kvm/" "${targets[@]}" || return
	[ -e "$out/virt/kvm/guest_memfd.o" ] || { echo "the configuration has no guest_memfd"; return 1; }
}

# compiled TREE COMPILER VARIANT [C=2]: the same as messages
compiled() {
	local log status=0

	log=$LOG/check-$(basename "$1")-$2-$3${4:+-sparse}.log
	compile "$@" >"$log" 2>&1 || status=$?
	messages "$1" <"$log"
	[ "$status" = 0 ] || echo "make failed, see ${log#"$ROOT/"}"
}

gcc_warnings() {
	{
		compiled "$1" gcc y
		[ "$1" = "$UNPATCHED" ] || compiled "$1" gcc n
	} | sort -u
}

clang_warnings() {
	{
		compiled "$1" clang y
		[ "$1" = "$UNPATCHED" ] || compiled "$1" clang n
		compiled "$1" clang-arm64 y
	} | sort -u
}

# build_sparse: the newest of Debian's, as that of Debian 12 doesn't know all that the
# kernel uses, and the kernel then goes without it
build_sparse() (
	apt_setup Sources &&
		version=$(apt-cache showsrc sparse | sed -n 's/^Version: //p' | sort -V | tail -n 1) &&
		rm -rf "$SPARSE.new" && mkdir "$SPARSE.new" && cd "$SPARSE.new" &&
		apt-get source --download-only --tar-only "sparse=$version" &&
		tar -xf sparse_*.orig.tar.* --strip-components=1 && make -j"$(nproc)" sparse &&
		echo "$version" >version && rm -rf "$SPARSE" && mv "$SPARSE.new" "$SPARSE"
)

# sparsed TREE COMPILER: what sparse says.  What the compiler says is told by the option
# that controls it, and is left out.
sparsed() {
	local log

	log=$LOG/check-$(basename "$1")-$2-y-sparse.log
	compiled "$1" "$2" y C=2 "CHECK=$SPARSE/sparse" | grep -v '\[-W' || true
	grep -q '^  CHECK ' "$log" || echo "sparse failed, see ${log#"$ROOT/"}: it looked at nothing"
}

sparse_warnings() {
	{
		sparsed "$1" gcc
		sparsed "$1" clang-arm64
	} | sort -u
}

check_gcc() { new gcc_warnings; }
check_clang() { new clang_warnings; }
check_sparse() { new sparse_warnings; }

selftests_warnings() {
	local tests compiler out status

	for compiler in gcc "clang$LLVM"; do
		out=$CHECK/$(basename "$1")-selftests-$compiler status=0
		mapfile -t tests < <(touched "$1" '^tools/testing/selftests/kvm/.*_test\.c$' |
			sed "s,^tools/testing/selftests/kvm/\(.*\)\.c$,$out/\1,")
		rm -rf "$out"
		mkdir -p "$out"
		make -C "$1" O="$out" ARCH=x86_64 headers >"$out.log" 2>&1 &&
			make -k -C "$1/tools/testing/selftests/kvm" OUTPUT="$out" \
				KHDR_INCLUDES="-isystem $out/usr/include" CC="ccache $compiler" \
				-j"$(nproc)" "${tests[@]}" >>"$out.log" 2>&1 || status=$?
		sed 's,^\(include\|lib\|x86\|[a-z_]*\.c\),tools/testing/selftests/kvm/\1,' "$out.log" |
			messages "$1"
		[ "$status" = 0 ] || echo "make with $compiler failed, see ${out#"$ROOT/"}.log"
	done
}

check_selftests() { new selftests_warnings; }

# coccicheck takes a directory: one with copies of what is touched
coccinelle_reports() {
	local dir

	dir=$CHECK/$(basename "$1")-cocci
	rm -rf "$dir"
	touched "$1" '\.[ch]$' | while read -r file; do
		mkdir -p "$dir/$(dirname "$file")"
		cp "$1/$file" "$dir/$file"
	done
	cd "$dir" || return	# spatch leaves files where it is started
	srctree=$1 srcroot=$dir LINUXINCLUDE='' KBUILD_EXTMOD='' MODE=report J=$(nproc) \
		DEBUG_FILE=/dev/null "$1/scripts/coccicheck" >"$dir.log" 2>&1 || {
		echo "coccicheck failed, see ${dir#"$ROOT/"}.log"
	}
	sed "s,$dir/,,g" "$dir.log" | grep -E '^[^ ]+:[0-9]+' | sort -u || true
}

check_coccinelle() { new coccinelle_reports; }

kerneldoc_warnings() {
	cd "$1" || return
	touched "$1" '^[^t].*\.[ch]$' |
		PYTHONDONTWRITEBYTECODE=1 xargs tools/docs/kernel-doc -none -Wall 2>&1 |
		sed -E 's/^(Warning|Error): //' || true
}

check_kernel-doc() { new kerneldoc_warnings; }

# What headers_install copies; needs no configuration
export_headers() {
	mkdir -p "$CHECK/uapi"
	kmake "$REPO" "$CHECK/uapi" gcc headers >&2
}

check_uapi() {
	local out=$CHECK/uapi log=$LOG/check-uapi.log status=0

	export_headers 2>"$log" && set_up "$REPO" "$out" gcc y >>"$log" 2>&1 &&
		kmake "$REPO" "$out" gcc usr/ >>"$log" 2>&1 || status=$?
	[ "$status" = 0 ] || echo "make failed, see ${log#"$ROOT/"}"
	[ -e "$out/usr/include/linux/kvm.hdrtest" ] || echo "usr/include/linux/kvm.h was not tested"
	messages "$REPO" <"$log"
}

# The headers need no libc, so that compilers without one for a target will do
check_abi() {
	local compiler

	export_headers || return
	for compiler in 'gcc -m64' 'gcc -m32' "clang$LLVM --target=i386" "clang$LLVM -m64"; do
		$compiler -std=gnu11 -Wall -Wextra -fsyntax-only -I "$CHECK/uapi/usr/include" \
			scripts/abi.c 2>&1 | sed -n "s/^\(.*\(error\|warning\):.*\)/\1 ($compiler)/p" || true
	done
}

check_shellcheck() {
	shellcheck -x -f gcc scripts/*.sh vm/qemu-* .ci/run || true
}

check_harness() {
	local compiler file

	export_headers || return
	# What vm/guide.c includes
	guide_code 'Moving a VMM from per-VM attributes' >"$CHECK/porting-guide.h"
	for compiler in gcc "clang$LLVM"; do
		for file in vm/*.c examples/*.c; do
			"$compiler" -std=gnu11 -Wall -Wextra -O2 -I "$CHECK" \
				-isystem "$CHECK/uapi/usr/include" \
				-c -o /dev/null "$file" 2>&1 |
				sed -n "s/^\(.*\(error\|warning\):.*\)/\1 ($compiler)/p" || true
		done
	done
}

# What a check depends on: its own code, its tools, and its input
check_id() {
	declare -f "check_$1" sparsed new base_id messages touched compile compiled kmake set_up \
		"${1}_warnings" kerneldoc_warnings coccinelle_reports selftests_warnings 2>/dev/null || true
	dpkg-query -W -f '${Package} ${Version}\n' coccinelle codespell "clang$LLVM" gcc shellcheck
	case $1 in
	checkpatch|messages) cat patches/*.patch ;;
	codespell) git ls-files -z -- ':!docs/bench/*.[cps]*g' | xargs -0 cat ;;
	shellcheck|harness) cat scripts/*.sh .ci/run vm/qemu-* vm/*.c examples/* ;;&
	abi) cat scripts/abi.c ;;&
	sparse) cat "$SPARSE/version" ;;&
	harness) git -C "$REPO" rev-parse HEAD:Documentation/virt/kvm/guest-memfd.rst ;;&
	harness|uapi|abi) git -C "$REPO" rev-parse HEAD:include/uapi HEAD:arch/x86/include/uapi HEAD:usr ;;
	selftests) git -C "$REPO" rev-parse HEAD:tools HEAD:include/uapi HEAD:arch/x86/include/uapi ;;
	shellcheck) ;;
	*) git -C "$REPO" ls-tree HEAD | grep -v $'\tDocumentation$'; cat config/*.config ;;
	esac
}

# Prints what is found that no exception is for.  Exceptions are lines NAME REGEX
# below a comment that says why.
filtered() {
	local name regex

	cp "$CHECK/$1.found" "$CHECK/$1.left"
	while read -r name regex; do
		[ "$name" = "$1" ] || continue
		if grep -qE -- "$regex" "$CHECK/$1.found"; then
			grep -vE -- "$regex" "$CHECK/$1.left" >"$CHECK/$1.left.new" || true
			mv "$CHECK/$1.left.new" "$CHECK/$1.left"
		else
			echo "scripts/check.except: nothing needs this exception: $name $regex"
		fi
	done <"$EXCEPT"
	cat "$CHECK/$1.left"
}

# run_check NAME TEXT
run_check() {
	local id start=$SECONDS seconds=- excepted

	printf '%-12s%-52s' "$1" "$2"
	id=$(check_id "$1" | sha256sum)
	if [ "$(cat "$CHECK/$1.id" 2>/dev/null)" != "$id" ]; then
		rm -f "$CHECK/$1.id"
		(set +e; cd "$ROOT"; "check_$1") >"$CHECK/$1.found" 2>"$LOG/check-$1.err" </dev/null ||
			echo "check_$1 failed: $(tail -n 1 "$LOG/check-$1.err")" >>"$CHECK/$1.found"
		seconds=$((SECONDS - start))
		grep -qE "^check_$1 failed|failed, see |^error: " "$CHECK/$1.found" ||
			echo "$id" >"$CHECK/$1.id"
	fi
	filtered "$1" >"$CHECK/$1.bad"
	excepted=$(($(wc -l <"$CHECK/$1.found") - $(wc -l <"$CHECK/$1.left")))
	if [ -s "$CHECK/$1.bad" ]; then
		printf '%-8s%5s%6d%7d\n' FAILED "$seconds" "$(wc -l <"$CHECK/$1.bad")" "$excepted"
		return 1
	fi
	printf '%-8s%5s%6d%7d\n' ok "$seconds" 0 "$excepted"
}

cd "$ROOT"
mkdir -p "$CHECK"
"$ROOT/scripts/unpatched.sh"
# shellcheck disable=SC2053 # CHECKS is a pattern
[[ sparse != ${CHECKS:-*} || -e $SPARSE ]] || step check-sparse "build sparse" build_sparse
passed=0 failed=0 bad=()
printf '%-12s%-52s%-8s%5s%6s%7s\n' check 'of what' result s found except
while IFS=$'\t' read -r name text; do
	# shellcheck disable=SC2053 # CHECKS is a pattern
	[[ -n $name && $name = ${CHECKS:-*} ]] || continue
	if run_check "$name" "$text"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		bad+=("$name")
	fi
done <<<"$checks"
[ $((passed + failed)) -gt 0 ] || die "no check matches $CHECKS"
for name in "${bad[@]}"; do
	say "$name:"
	sed 's/^/    /' "$CHECK/$name.bad" | head -n 40
done
say "$passed passed, $failed failed, $SECONDS s"
[ "$failed" = 0 ] || die "all that was found is in ${CHECK#"$ROOT/"}/*.bad"
