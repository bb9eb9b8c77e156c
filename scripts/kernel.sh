#!/bin/bash
# Configure and build the kernel for the test VM: scripts/kernel.sh VARIANT...
#
# A variant is what follows "attrs-" in config/, n or y, and may name more
# fragments: n-debug is vm.config + attrs-n.config + debug.config.  A line
# "#make NAME=VALUE" of a fragment is for make.  The result is in kernel-VARIANT;
# uapi has the headers for programs, the same for all.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

# Nothing that differs between two builds of the same source
export KBUILD_BUILD_USER=gmem KBUILD_BUILD_HOST=vm KBUILD_BUILD_VERSION=1
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
export CCACHE_DIR=$BUILD/ccache

fragments() {
	local part prefix=attrs-

	echo "$ROOT/config/vm.config"
	for part in ${1//-/ }; do
		[ -e "$ROOT/config/$prefix$part.config" ] ||
			die "$1: there is no config/$prefix$part.config"
		echo "$ROOT/config/$prefix$part.config"
		prefix=
	done
}

# The fragments get what they, or the last one of several, ask for, except for
# options that the series adds if the tree does not have them: the base always
# tracks PRIVATE per VM.
check_config() {
	local config=$1 wrong option

	shift
	wrong=$(awk '
		{ name = /^# CONFIG_[^ ]* is not set/ ? $2 : /^CONFIG_/ ? $1 : "" }
		{ sub(/=.*/, "", name) }
		name == "" { next }
		FILENAME == config { is[name] = $0; next }
		{ want[name] = $0 }
		END {
			for (name in want)
				if (want[name] ~ /^#/ ? is[name] !~ /^(#|$)/ : is[name] != want[name])
					print want[name]
		}' config="$config" "$@" "$config")
	for option in KVM_VM_MEMORY_ATTRIBUTES KVM_GUEST_MEMFD_KUNIT_TEST; do
		grep -q "^config $option$" "$SRC/arch/x86/kvm/Kconfig" ||
			wrong=$(grep -v "^CONFIG_$option=" <<<"$wrong" || true)
	done
	[ -z "$wrong" ] || {
		echo "error: these came out differently than config/ asks:"
		echo "$wrong"
		return 1
	}
}

configure() {
	local out=$1 new=$1/new-config

	shift
	rm -rf "$new"
	mkdir "$new" && cd "$SRC" &&
		scripts/kconfig/merge_config.sh -n -Q -O "$new" kernel/configs/tiny-base.config \
			kernel/configs/tiny.config arch/x86/configs/tiny.config "$@" &&
		check_config "$new/.config" "$@" || return
	cmp -s "$new/.config" "$out/.config" || mv "$new/.config" "$out/.config"
	rm -rf "$new"
}

# start_with VARIANT: a copy of what has been built already with the other one of
# attrs-n and attrs-y, or without gcov, if any.  These differ in little, i.e. little
# is compiled.
start_with() {
	local other

	case $1 in
	n*) other=$OUT/kernel-y${1#n} ;;
	y*) other=$OUT/kernel-n${1#y} ;;
	esac
	[ -e "$other/build-id" ] || other=$OUT/kernel-${1%-gcov}
	[ -e "$other/build-id" ] || return 0
	copy_kernel "$other" "$OUT/kernel-$1"
}

build() {
	local out=$1 options

	shift
	mapfile -t options < <(sed -n 's/^#make //p' "$@")
	# To also find what was compiled with a different configuration but comes out the
	# same, ccache has to preprocess each file.  At first there's nothing to be found.
	[ -e "$CCACHE_DIR/built-$variant" ] || export CCACHE_DEPEND=1
	make -C "$SRC" O="$out" CC="ccache gcc" LOCALVERSION= -j"$(nproc)" "${options[@]}" \
		vmlinux modules headers &&
		touch "$CCACHE_DIR/built-$variant"
}

# What the configuration depends on: fragments and Kconfig files
config_id() {
	{
		cat "$@"
		cd "$SRC"
		git ls-files -z -- '*Kconfig*' | xargs -0 cat
	} | sha256sum
}

# What all of the build depends on, i.e. not documentation or tests
build_id() {
	gcc --version | head -n 1
	sha256sum "$ROOT/scripts/kernel.sh"
	git -C "$SRC" ls-tree HEAD | grep -vE $'\t(Documentation|tools)$'
	git -C "$SRC" ls-tree HEAD tools/ | grep -v $'\ttools/testing$'
	# changes that are not committed, in a tree given as TREE=
	git -C "$SRC" --no-optional-locks diff HEAD | sha256sum
	(cd "$SRC" && git ls-files -z --others --exclude-standard | xargs -0 -r sha256sum)
}

for variant; do
	out=$OUT/kernel-$variant
	mapfile -t files < <(fragments "$variant")

	rm -rf "$out.new"
	[ -e "$out" ] || start_with "$variant"
	mkdir -p "$out"

	id=$(config_id "${files[@]}")
	if [ "$(cat "$out/config-id" 2>/dev/null)" != "$id" ]; then
		rm -f "$out"/*-id
		step "config-$variant" "configure kernel-$variant" configure "$out" "${files[@]}"
		echo "$id" >"$out/config-id"
	fi

	id="$id $(build_id | sha256sum)"
	if [ "$(cat "$out/build-id" 2>/dev/null)" != "$id" ]; then
		rm -f "$out/build-id"
		step "kernel-$variant" "build kernel-$variant" build "$out" "${files[@]}"
		ln -sfn "kernel-$variant/usr/include" "$OUT/uapi"
		echo "$id" >"$out/build-id"
	fi
done
