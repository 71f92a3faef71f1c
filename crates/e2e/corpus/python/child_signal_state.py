# What a child inherits of signals.
import subprocess

print(subprocess.run(["sh", "-c", "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status || while read l; do case $l in SigBlk*|SigIgn*) echo \"$l\";; esac; done < /proc/self/status"], capture_output=True, text=True).stdout)
