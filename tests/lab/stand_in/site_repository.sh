#!/bin/sh
# VERSION: a stand-in for a site's own repository: the distribution's packages of Slurm at VERSION
# under a version of the site, VERSION+site1, signed with the site's key, which is printed. Run on the
# package host, which serves it.
set -eu
version=$1
www=/var/lib/slurmstack-packages/www/site
work=$(mktemp -d)
rm -rf "$www"
mkdir -p "$www" "$work/gnupg"
chmod 0700 "$work/gnupg"
cd "$work"
# As its own user apt may not write here.
for package in libslurm-dev sackd slurm-client slurm-wlm-basic-plugins slurm-wlm-jwt-plugin \
  slurm-wlm-mysql-plugin slurmctld slurmd slurmdbd slurmrestd; do
  apt-get -q -o APT::Sandbox::User=root download "$package=$version" >&2
done
for file in *.deb; do
  dpkg-deb --raw-extract "$file" unpacked
  sed -i "s/^Version: .*/&+site1/; s/(= $version)/(= $version+site1)/g" unpacked/DEBIAN/control
  dpkg-deb --root-owner-group -Znone --build unpacked "$www" >&2
  rm -r unpacked
done
cd "$www"
apt-ftparchive packages . >Packages
apt-ftparchive release . >Release
sign() {
  gpg --homedir "$work/gnupg" --batch --quiet --pinentry-mode loopback --passphrase '' "$@"
}
sign --quick-generate-key 'the site' rsa3072 sign never
sign --clearsign --output InRelease Release
sign --armor --export
gpgconf --homedir "$work/gnupg" --kill gpg-agent
rm -r "$work"
