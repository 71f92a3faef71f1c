# As the kernel has them.
for line in open("/proc/self/status"):
    if line.startswith(("Sig", "Shd", "Threads")) and not line.startswith("SigQ"):
        print(line.strip())
