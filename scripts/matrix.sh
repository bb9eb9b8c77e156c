#!/bin/bash
# Build the series in each configuration that its code distinguishes, and for
# other architectures, with KVM_WERROR=y and W=1, and print a table.
#
# A row fails if it does not compile or link, if its modules have undefined
# symbols, if its .config is not what it asks for, or with any warning in KVM or
# in a file that patches/ touches; others stay in its log.  A row whose source,
# configuration and compiler did not change since it passed is not built again.
#
# ROWS='x86_64-m-*' builds only rows that match.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
[ $# = 0 ] || { usage >&2; exit 2; }

# For what it exports, and check_config
# shellcheck source=scripts/kernel.sh
. "$ROOT/scripts/kernel.sh"

MATRIX=$OUT/matrix

# ARCH-KVM, and for x86_64 the types of confidential VMs and whether PRIVATE may
# be tracked per VM.  Neighbours have most of their objects in common.
rows() {
	local kvm types

	for kvm in m y; do
		for types in none sw tdx sw,tdx sev sw,sev tdx,sev sw,tdx,sev; do
			echo "x86_64-$kvm-$types-n"
			echo "x86_64-$kvm-$types-y"
		done
	done
	printf '%s\n' i386-m i386-y arm64-y arm64-selftests riscv-m riscv-y \
		s390-m s390-y s390-selftests any-kerneldoc
}

# Sets the variables of a row.  Rows that share an output directory differ in
# options of KVM only.
parse() {
	row=$1
	IFS=- read -r arch kvm types attrs <<<"$row"
	out=$MATRIX/$arch-$kvm
	srcarch=$arch cross=''
	case $row in
	i386-[my]|riscv-[my]|s390-[my]) out=$MATRIX/$arch ;;
	esac
	case $arch in
	x86_64|i386) srcarch=x86 ;;
	arm64) cross=aarch64-linux-gnu- ;;
	riscv) cross=riscv64-linux-gnu- ;;
	s390) cross=s390x-linux-gnu- ;;
	any) srcarch='' ;;
	esac
}

# set_option NAME VALUE
set_option() {
	if [ "$2" = n ]; then
		echo "# CONFIG_$1 is not set"
	else
		echo "CONFIG_$1=$2"
	fi
}

# contains WORD: whether types has it
contains() {
	[[ ,$types, = *,$1,* ]] && echo y || echo n
}

# What the row has to have.  Without a type of confidential VM there is nothing
# to track per VM.
wanted() {
	local file

	for file in "$ROOT/config/matrix"{,"-$arch","-$arch-$kvm"}.config; do
		[ ! -e "$file" ] || cat "$file"
	done
	set_option KVM "$kvm"
	[ "$srcarch" != x86 ] || set_option KVM_AMD "$kvm"
	[ "$srcarch" != x86 ] || set_option KVM_INTEL "$kvm"
	[ "$arch" = x86_64 ] || return 0
	set_option KVM_SW_PROTECTED_VM "$(contains sw)"
	set_option KVM_INTEL_TDX "$(contains tdx)"
	set_option KVM_AMD_SEV "$(contains sev)"
	if [ "$types" = none ]; then
		set_option KVM_VM_MEMORY_ATTRIBUTES n
	else
		set_option KVM_VM_MEMORY_ATTRIBUTES "$attrs"
	fi
}

# W=1 runs kernel-doc, too, which for all files would take longer than compiling
# them: without PYTHON3 it is not run, and a row of its own runs it for ours.
kmake() {
	make -C "$SRC" O="$out" ARCH="$arch" CROSS_COMPILE="$cross" CC="ccache ${cross}gcc" \
		HOSTCC="ccache gcc" PYTHON3=: LOCALVERSION= -j"$(nproc)" "$@"
}

configure_row() {
	local tiny=$SRC/arch/$srcarch/configs/tiny.config

	[ -e "$tiny" ] || tiny=
	wanted >"$out/wanted"
	{
		cat "$SRC"/kernel/configs/tiny{-base,}.config ${tiny:+"$tiny"} "$out/wanted"
		[ -z "$attrs" ] || set_option KVM_VM_MEMORY_ATTRIBUTES "$attrs"
	} >"$out/asked"
	kmake KCONFIG_ALLCONFIG="$out/asked" allnoconfig &&
		check_config "$out/.config" "$out/wanted" | paste -sd ' '
}

build_row() {
	case $kvm in
	selftests) selftests; return ;;
	kerneldoc) kerneldoc; return ;;
	esac
	configure_row || return
	[ "$types-$attrs" != none-y ] || return 0
	if [ "$kvm" = m ]; then
		kmake W=1 vmlinux modules
	else
		kmake W=1 vmlinux
	fi
}

# The selftests of an architecture, with what patches/ does to their library
selftests() {
	mkdir -p "$out"/{tests,tools}
	kmake headers &&
		make -C "$SRC/tools/testing/selftests/kvm" ARCH="$arch" CC="ccache ${cross}gcc" \
			OUTPUT="$out/tests" abs_objdir="$out" KHDR_INCLUDES="-isystem $out/usr/include" \
			-j"$(nproc)" all
}

# The comments of the .c files of the series, as W=1 checks them
kerneldoc() {
	cd "$SRC" && touched | grep '\.c$' | grep -v ^tools |
		PYTHONDONTWRITEBYTECODE=1 xargs tools/docs/kernel-doc -none -Werror
}

# The files that patches/ has
touched() {
	sed -n 's,^+++ b/,,p' "$ROOT"/patches/[0-9]*.patch | grep -v ^Documentation | sort -u
}

# Extended regular expression for the files in which no warning is accepted
ours() {
	echo "virt/kvm/[^ :]*|arch/[a-z0-9]*/kvm/[^ :]*|$(touched | sed 's/\./\\./g' | paste -sd '|')"
}

# complaints LOG: what is wrong although make may not think so
complaints() {
	grep -E "(^|[ /])($ours)[: ].*warning: |(warning: objtool|WARNING: (modpost|unmet direct)).*([kK][vV][mM]|gmem)" "$1" || true
}

# first_error LOG
first_error() {
	local pattern

	for pattern in '(error|ERROR): |undefined reference|No rule' '\*\*\*' '[Ww]arning: '; do
		grep -m 1 -E "$pattern" "$1" && return
	done
	tail -n 1 "$1"
}

# What all rows depend on, beside the files that git knows
common_id() {
	sha256sum "$ROOT/scripts/matrix.sh" "$ROOT/scripts/kernel.sh"
	echo "$ours"
	# changes that are not committed, in a tree given as TREE=
	git -C "$SRC" --no-optional-locks diff HEAD | sha256sum
	(cd "$SRC" && git ls-files -z --others --exclude-standard | xargs -0 -r sha256sum)
}

# What the row depends on, not other architectures.  Only selftests depend on
# selftests.
row_id() {
	{
		echo "$common_id"
		"${cross}gcc" --version | head -n 1
		wanted
		echo "$attrs"
		git -C "$SRC" ls-tree HEAD | grep -vE $'\t(Documentation|arch|tools)$'
		git -C "$SRC" ls-tree HEAD arch/Kconfig "arch/$srcarch" tools/ |
			if [ "$kvm" = selftests ]; then cat; else grep -v $'\ttools/testing$'; fi
	} | sha256sum
}

# result WORD SECONDS TEXT: the end of the row's line
result() {
	printf '%-8s%5s  %.120s\n' "$1" "$2" "$3"
}

# Warnings appear when a file is compiled, not when it is up to date.  So what is
# left of a build that had some, or of one that was not judged, is not used.
run_row() {
	local log=$LOG/matrix-$row.log stamp=$MATRIX/ok-$row start=$SECONDS id bad='' warning
	local verdict=ok text=''

	printf '%-8s%-11s%-12s%-8s' "$arch" "$kvm" "${types:--}" "${attrs:--}"
	[ "$types-$attrs" != none-y ] || { verdict=n/a text='Kconfig turns it off, as it should'; }
	id=$(row_id)
	if [ "$(cat "$stamp" 2>/dev/null)" = "$id" ]; then
		result "$verdict" - 'not changed since'
		return
	fi

	rm -f "$stamp"
	[ ! -e "$out/not-judged" ] || rm -rf "$out"
	mkdir -p "$out"
	touch "$out/not-judged"
	(build_row) >"$log" 2>&1 </dev/null || bad=$(first_error "$log")
	warning=$(complaints "$log" | head -n 1)
	[ -n "$warning" ] || rm -f "$out/not-judged"
	bad=${bad:-$warning}
	if [ -n "$bad" ]; then
		result FAILED $((SECONDS - start)) "${bad#"$SRC/"}"
		return 1
	fi
	echo "$id" >"$stamp"
	result "$verdict" $((SECONDS - start)) "$text"
}

ours=$(ours)
common_id=$(common_id)
passed=0 failed=0
mkdir -p "$MATRIX"
printf '%-8s%-11s%-12s%-8s%-8s%5s  %s\n' arch KVM CoCo per-VM result s 'first error'
while read -r row; do
	# shellcheck disable=SC2053 # ROWS is a pattern
	[[ $row = ${ROWS:-*} ]] || continue
	parse "$row"
	if run_row; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done < <(rows)
[ $((passed + failed)) -gt 0 ] || die "no row matches $ROWS"
say "$passed passed, $failed failed, $SECONDS s"
[ "$failed" = 0 ] || die "see ${LOG#"$ROOT/"}/matrix-*.log"
