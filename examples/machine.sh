# What the VM is made of: cloude run examples/machine.sh
echo "kernel: $(uname -r)"
echo "init:   $(tr '\0' ' ' < /proc/1/cmdline)"
echo "memory: $(awk '/MemTotal/ { print $2 " KiB" }' /proc/meminfo 2>/dev/null || head -1 /proc/meminfo)"
df -h / /tmp 2>/dev/null
