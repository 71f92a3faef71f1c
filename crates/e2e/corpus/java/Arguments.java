// corpus: args = ["alpha", "two words", "", "é"]
// corpus: env = { GIVEN = "a value" }
// corpus: exit_code = 200
import java.util.TreeMap;

public class Main {
    public static void main(String[] args) {
        for (String argument : args) {
            System.out.println("<" + argument + ">");
        }
        new TreeMap<>(System.getenv()).forEach((name, value) -> System.out.println(name + "=" + value));
        System.exit(200);
    }
}
