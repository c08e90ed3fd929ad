# shellcheck shell=bash
# Where this machine gets Debian from. Sourced by .ci/engine and scripts/base-images.
#
# The archive is read from apt's own settings at run time, so a site's mirror, or an archive without the Internet,
# is used as it is, and no address stands in a file of this project.

# apt_install PACKAGE... - installs what is missing, without questions and without recommended extras.
apt_install() {
  [ "$(id -u)" = 0 ] || { echo "Root is needed to install: $*. Run this as root, or install them yourself." >&2; return 1; }
  if [ -z "$(apt-cache madison "$1" 2>/dev/null)" ]; then
    apt-get update -qq -o DPkg::Lock::Timeout=300
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >/dev/null
}

# debian_release - the code name of this machine's release, e.g. bookworm.
debian_release() {
  # shellcheck disable=SC1091 # not part of this project
  (. /etc/os-release && echo "${VERSION_CODENAME:?/etc/os-release names no code name}")
}

# debian_sources - this machine's sources for its own release, one "URI SUITE COMPONENT" a line; the main archive first.
debian_sources() {
  local release; release=$(debian_release)
  # apt answers for both of its file formats, and for whatever the site has put into them.
  # shellcheck disable=SC2016 # apt fills these in, not the shell
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' \
    | awk -v r="$release" '$2 == r { print | "sort -u" } $2 ~ "^" r "-" { later[n++] = $0 }
                           END { close("sort -u"); for (i = 0; i < n; i++) print later[i] }'
}

# debian_mirror - the URI of the archive that serves this release.
debian_mirror() {
  local mirror; mirror=$(debian_sources | awk 'NR == 1 { print $1 }')
  [ -n "$mirror" ] || { echo "apt knows no archive for $(debian_release). Look at /etc/apt/sources.list*." >&2; return 1; }
  echo "$mirror"
}

# debian_unpack RELEASE FOLDER PACKAGE... - unpacks packages of another release into FOLDER/root, without installing them: this
# machine's own package list stays as it is. apt checks their signatures as always.
debian_unpack() {
  local release=$1 folder=$2 mirror package
  shift 2
  mirror=$(debian_mirror)
  mkdir -p "$folder/lists/partial" "$folder/root"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >"$folder/sources.list"
  local apt=(apt-get -qq -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$folder/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o APT::Sandbox::User=root -o Acquire::Languages=none)
  "${apt[@]}" update
  (cd "$folder" && "${apt[@]}" download "$@")
  for package in "$folder"/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
}
