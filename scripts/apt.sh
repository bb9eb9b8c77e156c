# shellcheck shell=bash
#
# An apt of our own: its lists, cache and sources are in build/base, the system's
# are neither used nor changed.  Only the mirror is the one that the system uses.

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
BASE=$BUILD/base

# apt_setup Packages|Sources: configure it and make sure that there are lists of
# binary packages, or of source packages, too
apt_setup() {
	local mirror suite

	# shellcheck disable=SC2016 # apt expands these
	mirror=$(apt-get indextargets --format '$(LABEL)|$(COMPONENT)|$(SITE)' 'Created-By: Packages' |
		sed -n 's/^Debian|main|//p' | head -n 1)
	[ -n "$mirror" ] ||
		die "apt knows no Debian mirror; run apt-get update as root, or give KERNEL_SRC="
	mkdir -p "$BASE/apt"/{lists/partial,cache/archives/partial}
	for suite in trixie-backports sid experimental; do
		echo "deb [signed-by=$KEYRING] $mirror $suite main"
		[ "$1" = Packages ] || echo "deb-src [signed-by=$KEYRING] $mirror $suite main"
	done >"$BASE/apt/sources.list"
	cat >"$BASE/apt/apt.conf" <<-EOT
		Dir::Etc::SourceList "$BASE/apt/sources.list";
		Dir::Etc::SourceParts "-";
		Dir::Etc::Preferences "-";
		Dir::Etc::PreferencesParts "-";
		Dir::State::Lists "$BASE/apt/lists";
		Dir::Cache "$BASE/apt/cache";
		Acquire::Languages "none";
		Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
	EOT
	export APT_CONFIG=$BASE/apt/apt.conf
	if [ -z "$(find "$BASE/apt/lists" -name "*_$1*" -mtime -1 -print -quit)" ]; then
		step apt-update "update package lists" apt-get update
	fi
}

# apt_versions PACKAGE: those that the suites have, oldest first
apt_versions() {
	apt-cache madison "$1" | awk '{ print $3 }' | sort -Vu
}

# apt_download PACKAGE VERSION [DIRECTORY]: to build/base or elsewhere.  apt checks
# what it downloads against the signed lists.
apt_download() {
	rm -rf "$BASE/partial" && mkdir -p "$BASE/partial" && cd "$BASE/partial" &&
		apt-get download "$1=$2" && mv -- *.deb "${3:-$BASE}/" && rmdir "$BASE/partial"
}

# debian_config FLAVOUR DIRECTORY: puts Debian's configuration for amd64 there, of the
# version of the base, if it is Debian's and still to be had, else of the newest.
# Prints the name of the file.
debian_config() {
	local package=linux-config-7.3 version have

	have=$(git -C "$REPO" tag -l --format='%(contents:subject)' base |
		sed -n 's/^linux-source-7.3 \([^,]*\),.*/\1/p')
	apt_setup Packages >&2
	version=$(apt_versions "$package" | grep -xF "$have" || apt_versions "$package" | tail -n 1)
	[ -n "$version" ] || die "the mirror has no package $package; give CONFIG="
	[ -e "$BASE/${package}_${version}_amd64.deb" ] ||
		step download "download $package $version" apt_download "$package" "$version" >&2
	dpkg-deb --fsys-tarfile "$BASE/${package}_${version}_amd64.deb" |
		tar -xO "./usr/src/$package/config.amd64_none_$1.xz" | xz -d >"$2/debian-$version.new" ||
		die "$package $version has no configuration $1; give CONFIG="
	mv "$2/debian-$version.new" "$2/debian-$version" || die "cannot write to $2"
	echo "$2/debian-$version"
}
