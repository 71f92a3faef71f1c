// corpus: exit_code = 9
public class Main {
    static {
        System.out.println("static initializer");
    }

    public static void main(String[] args) {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("never")));
        System.out.print("no newline");
        System.out.flush();
        Runtime.getRuntime().halt(9);
    }
}
