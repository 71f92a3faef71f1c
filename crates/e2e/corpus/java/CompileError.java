// corpus: exit_code = 1
public class Main {
    public static void main(String[] args) {
        int number = "a text";
        undeclared();
    }
}
