// corpus: exit_code = 1
public class Main {
    static int depth;

    static void down() {
        depth++;
        down();
    }

    public static void main(String[] args) {
        try {
            down();
        } catch (StackOverflowError error) {
            System.out.println(error.getMessage() + " " + (depth > 1000) + " " + error.getStackTrace()[0].getMethodName());
        }
        int[][] large = new int[1 << 20][];
        for (int i = 0; ; i++) {
            large[i] = new int[1 << 28];
        }
    }
}
