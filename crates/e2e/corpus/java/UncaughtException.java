// corpus: exit_code = 1
public class Main {
    static int depth(int number) {
        return number == 0 ? 1 / number : depth(number - 1);
    }

    public static void main(String[] args) {
        System.out.println("before");
        try {
            depth(2);
        } catch (ArithmeticException error) {
            IllegalStateException outer = new IllegalStateException("outer", error);
            outer.addSuppressed(new RuntimeException("suppressed"));
            throw outer;
        }
    }
}
