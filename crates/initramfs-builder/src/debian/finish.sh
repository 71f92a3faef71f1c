# Runs on the host once all packages are extracted; $1 is the new root. It does what their
# maintainer scripts would have done and programs need, and drops what no program reads.
set -eu
root=$1
cd "$root"

for deb in $MMDEBSTRAP_ESSENTIAL; do
    name=${deb##*/}
    echo "cloude-package: ${name%.deb}" >&2
    if [ -n "$DEBS" ] && [ ! -e "$DEBS/$name" ]; then
        # Renamed into place, so that no other build meets half of one.
        { ln "./$deb" "$DEBS/.$$" 2>/dev/null || cp "./$deb" "$DEBS/.$$"; } && mv "$DEBS/.$$" "$DEBS/$name"
    fi
done

# base-passwd.postinst
for file in passwd group; do
    [ -e "etc/$file" ] || [ ! -e "usr/share/base-passwd/$file.master" ] ||
        sed 's/:\*:/:x:/' "usr/share/base-passwd/$file.master" > "etc/$file"
done
[ -e etc/passwd ] || printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n' > etc/passwd
[ -e etc/group ] || printf 'root:x:0:\nnogroup:x:65534:\n' > etc/group

# base-files.postinst
for dir in root home mnt opt srv run proc sys dev var/log var/tmp; do
    mkdir -p "$dir"
done
chmod 0700 root
chmod 1777 tmp var/tmp
[ -e var/run ] || ln -s /run var/run
[ -e usr/bin/sh ] || [ ! -e usr/bin/dash ] || ln -s dash usr/bin/sh
[ -e etc/nsswitch.conf ] || [ ! -e usr/share/libc-bin/nsswitch.conf ] || cp usr/share/libc-bin/nsswitch.conf etc/nsswitch.conf
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' > etc/hosts

# tzdata.postinst
if [ -e usr/share/zoneinfo/Etc/UTC ] && [ ! -L etc/localtime ]; then
    ln -s /usr/share/zoneinfo/Etc/UTC etc/localtime
    echo Etc/UTC > etc/timezone
fi

# update-ca-certificates: all certificates in one file, in the order of their names, and each by its name and by
# the hash that OpenSSL looks for.
if [ -d usr/share/ca-certificates ]; then
    mkdir -p etc/ssl/certs
    find usr/share/ca-certificates -name '*.crt' | LC_ALL=C sort | while read -r file; do
        name=${file##*/}
        ln -s "/$file" "etc/ssl/certs/${name%.crt}.pem"
        cat "$file"
        echo
    done > etc/ssl/certs/ca-certificates.crt
    [ ! -x usr/bin/openssl ] || chroot . /usr/bin/openssl rehash /etc/ssl/certs
fi

# ca-certificates-java.postinst: the same certificates as a Java key store (JKS, version 2), with no time of now.
if [ -d usr/lib/jvm ] && [ -e etc/ssl/certs/ca-certificates.crt ]; then
    mkdir -p etc/ssl/certs/java
    perl -MMIME::Base64 -MDigest::SHA=sha1 -e '
        my ($entries, $count) = ("", 0);
        for my $file (sort glob("etc/ssl/certs/*.pem")) {
            my $target = readlink $file or next;
            open(my $in, "<", ".$target") or die "$target: $!";
            my $pem = do { local $/; <$in> };
            $pem =~ /-----BEGIN CERTIFICATE-----(.*?)-----END/s or next;
            my $certificate = decode_base64($1);
            my ($alias) = $file =~ m{([^/]+)$};
            $entries .= pack("N n/a* N2 n/a* N/a*", 2, lc "debian:$alias", 0, 0, "X.509", $certificate);
            $count++;
        }
        my $store = pack("N3", 0xfeedfeed, 2, $count) . $entries;
        my $password = join "", map { "\0$_" } split //, "changeit";
        print $store, sha1($password . "Mighty Aphrodite" . $store);
    ' > etc/ssl/certs/java/cacerts
fi

# update-alternatives: NAME and what it may be, the best first.
alternative() {
    name=$1
    shift
    [ -e "usr/bin/$name" ] || [ -L "usr/bin/$name" ] && return
    for target; do
        [ -e "usr/bin/$target" ] || continue
        mkdir -p etc/alternatives
        ln -s "/etc/alternatives/$name" "usr/bin/$name"
        ln -s "/usr/bin/$target" "etc/alternatives/$name"
        return
    done
}
alternative awk gawk original-awk mawk
alternative nawk gawk original-awk mawk
alternative cc gcc clang tcc
alternative c++ g++ clang++
alternative c99 c99-gcc
alternative c89 c89-gcc
alternative editor vim.basic vim.tiny nano
alternative vi vim.basic vim.tiny
alternative pager less more
alternative which which.debianutils
alternative lua lua5.4 lua5.3
alternative ruby ruby3.3 ruby3.1
alternative php php8.4 php8.2
alternative nc nc.openbsd nc.traditional
alternative pinentry pinentry-curses
for program in usr/lib/jvm/*/bin/*; do
    [ -x "$program" ] || continue
    name=${program##*/}
    [ -e "usr/bin/$name" ] || [ -L "usr/bin/$name" ] || ln -s "/$program" "usr/bin/$name"
done

# Documentation, translations, caches, time zones with leap seconds, and what belongs to the host that builds.
for dir in usr/share/man usr/share/info usr/share/groff usr/share/lintian usr/share/linda \
    usr/share/bug usr/share/doc-base usr/share/bash-completion usr/share/zoneinfo/right var/lib/apt; do
    rm -rf "$dir"
done
if [ -d usr/share/doc ]; then
    find usr/share/doc ! -type d ! -name copyright -delete
    find usr/share/doc -depth -type d -empty -delete
fi
[ ! -d usr/share/locale ] || find usr/share/locale -depth -mindepth 1 ! -name locale.alias -delete
rm -f etc/resolv.conf etc/hostname etc/fstab

# Libraries outside the linker's own folders (etc/ld.so.conf.d) need its cache.
if [ -e etc/ld.so.conf ] && command -v ldconfig > /dev/null; then
    ldconfig -X -r "$root" 2> /dev/null || :
    rm -rf var/cache/ldconfig
fi

# r-base-core.postinst
[ -e etc/R/Renviron ] || [ ! -e usr/lib/R/etc/Renviron.ucf ] || cp usr/lib/R/etc/Renviron.ucf etc/R/Renviron

# swi-prolog-core.postinst and ghc.postinst: the indexes by which the compilers find their libraries.
[ ! -x usr/bin/swipl ] || chroot . /usr/bin/swipl -q -g 'make_library_index(swi(library))' -t halt
if [ -x usr/bin/ghc-pkg ]; then
    # Its libraries are found by $ORIGIN, which needs /proc.
    for libraries in usr/lib/ghc/lib/x86_64-linux-ghc-*; do
        LD_LIBRARY_PATH=/$libraries chroot . /usr/bin/ghc-pkg recache --global
    done
fi
