import signal

for number in sorted(signal.valid_signals()):
    print(number, signal.getsignal(number))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.sigpending(), signal.set_wakeup_fd(-1))
print(signal.getitimer(signal.ITIMER_REAL))

# As the kernel has them.
for line in open("/proc/self/status"):
    if line.startswith(("Sig", "Shd", "Threads")) and not line.startswith("SigQ"):
        print(line.strip())
