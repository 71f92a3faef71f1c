# Runs last; $1 is the new root. What this build made has the time of the newest file that a package
# brought: the same packages give the same bytes on any day.
set -eu
cd "$1"
rm -rf etc/apt etc/dpkg/dpkg.cfg.d/99mmdebstrap var/cache/apt var/lib/apt var/lib/dpkg/lock* var/lib/dpkg/triggers var/log/apt
rm -rf tmp/* tmp/.[!.]* run/*
newest=$(find . -type f ! -newer .cloude-start ! -path ./.cloude-start -printf '%T@\n' | sort -n | tail -n 1)
find . -newer .cloude-start -exec touch -h -d "@${newest%.*}" {} +
touch -d "@${newest%.*}" .
rm -f .cloude-start
touch -d "@${newest%.*}" .
