# Runs on the host before anything is extracted; $1 is the new root. DEBS is a folder of packages
# fetched earlier, empty when they come another way; START is when this build began, in seconds.
set -eu
root=$1

# Debian 12 and later have one tree below /usr; the package that makes these links is never
# configured here. Packages are unpacked through them (tar --keep-directory-symlink).
for dir in bin sbin lib lib32 lib64 libx32; do
    mkdir -p "$root/usr/$dir"
    ln -s "usr/$dir" "$root/$dir"
done

# Of the two packages that stand for this, the one that needs no Perl.
mkdir -p "$root/etc/apt/preferences.d"
printf 'Package: usrmerge\nPin: release *\nPin-Priority: -1\n' > "$root/etc/apt/preferences.d/cloude"

if [ -n "$DEBS" ]; then
    mkdir -p "$root/var/cache/apt/archives"
    find "$DEBS" -maxdepth 1 -name '*.deb' -exec ln -t "$root/var/cache/apt/archives" {} + 2>/dev/null ||
        find "$DEBS" -maxdepth 1 -name '*.deb' -exec cp -n -t "$root/var/cache/apt/archives" {} +
fi
touch -d "@$START" "$root/.cloude-start"
