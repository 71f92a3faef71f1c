#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t seen[65];
static void handler(int number) { seen[number]++; }

int main(void)
{
    struct sigaction action;
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    for (int number = 1; number < 32; number++) {
        sigaction(number, NULL, &action);
        if (action.sa_handler != SIG_DFL || sigismember(&blocked, number))
            printf("%d is not as by default\n", number);
    }
    signal(SIGUSR1, handler);
    signal(SIGALRM, handler);
    raise(SIGUSR1);
    kill(getpid(), SIGUSR1);
    struct itimerval soon = {.it_value.tv_usec = 20000};
    setitimer(ITIMER_REAL, &soon, NULL);
    while (!seen[SIGALRM])
        pause();
    printf("%d %d\n", seen[SIGUSR1], seen[SIGALRM]);
    return 0;
}
