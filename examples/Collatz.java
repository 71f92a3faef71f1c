// The longest Collatz sequence below a limit: cloude run examples/Collatz.java -- 10000
class Main {
    static int length(long n) {
        int steps = 1;
        for (; n != 1; steps++) {
            n = n % 2 == 0 ? n / 2 : 3 * n + 1;
        }
        return steps;
    }

    public static void main(String[] args) {
        int limit = args.length > 0 ? Integer.parseInt(args[0]) : 1000;
        int best = 1;
        for (int n = 1; n < limit; n++) {
            if (length(n) > length(best)) {
                best = n;
            }
        }
        System.out.println(best + " takes " + length(best) + " steps");
    }
}
