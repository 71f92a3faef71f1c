#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

static atomic_int total;
static __thread int own = 5;

static void *work(void *argument)
{
    for (int i = 0; i < 10000; i++)
        total++;
    own++;
    return (void *)(long)own;
}

int main(void)
{
    pthread_t threads[4];
    void *result;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, work, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], &result);
    printf("%d %ld %d\n", total, (long)result, own);
    return 0;
}
