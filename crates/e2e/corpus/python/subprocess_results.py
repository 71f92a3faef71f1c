# corpus: stdin = "for the child"
import signal
import subprocess
import sys

print(subprocess.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True, text=True))
print(subprocess.run([sys.executable, "-c", "print('child'); raise SystemExit(4)"]).returncode)
print(subprocess.run("kill -TERM $$", shell=True).returncode == -signal.SIGTERM)
print(subprocess.check_output(["cat"]))
with subprocess.Popen(["tr", "a-z", "A-Z"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
    print(process.communicate(b"loud"))
try:
    subprocess.run(["no-such-program"])
except FileNotFoundError as error:
    print(error)
try:
    subprocess.run(["sleep", "100"], timeout=0.1)
except subprocess.TimeoutExpired as error:
    print(error.cmd)

# Signal dispositions that a child inherits.
import subprocess

print(subprocess.run(["sh", "-c", "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status || while read l; do case $l in SigBlk*|SigIgn*) echo \"$l\";; esac; done < /proc/self/status"], capture_output=True, text=True).stdout)
