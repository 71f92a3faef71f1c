// corpus: exit_code = 3
public class Main {
    public static void main(String[] args) throws Exception {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook")));
        try {
            System.out.println("before");
            System.exit(3);
        } finally {
            System.out.println("never");
        }
    }
}
