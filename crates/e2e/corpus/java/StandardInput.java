// corpus: stdin = { base64 = "AP8KbGluZSDDqQpub3QgZW5kZWQ=" }
import java.io.BufferedReader;
import java.io.InputStreamReader;

public class Main {
    public static void main(String[] args) throws Exception {
        System.out.println(System.in.read() + " " + System.in.read() + " " + System.in.read());
        BufferedReader reader = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        System.out.println(reader.readLine());
        System.out.println(reader.readLine());
        System.out.println(reader.readLine() + " " + System.console());
        System.err.println("to standard error, é");
    }
}
