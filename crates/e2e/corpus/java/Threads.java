// An uncaught exception ends its thread only; the process waits for all threads except daemons.
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;

public class Main {
    public static void main(String[] args) throws Exception {
        System.out.println(Thread.currentThread().getName() + " " + Thread.currentThread().getPriority());
        Thread failing = new Thread(() -> { throw new IllegalArgumentException("in a thread"); }, "mine");
        failing.start();
        failing.join();
        AtomicInteger total = new AtomicInteger();
        var pool = Executors.newFixedThreadPool(4);
        var results = pool.invokeAll(List.of(() -> total.addAndGet(1), () -> total.addAndGet(2)));
        System.out.println(results.size() + " " + total + " " + IntStream.range(0, 1000).parallel().sum());
        pool.shutdown();
        Thread daemon = new Thread(() -> { while (true) Thread.onSpinWait(); });
        daemon.setDaemon(true);
        daemon.start();
        new Thread(() -> {
            try {
                Thread.sleep(100);
            } catch (InterruptedException error) {
                return;
            }
            System.out.println("after main, new thread " + new Thread().getName());
        }).start();
        System.out.println("end of main, processors " + Runtime.getRuntime().availableProcessors());
    }
}
