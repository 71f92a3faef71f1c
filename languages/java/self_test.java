import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Scanner;

public class Main {
    public static void main(String[] args) throws Exception {
        long total = 0;
        Scanner input = new Scanner(System.in);
        while (input.hasNextLong()) {
            total += input.nextLong();
        }
        System.out.println("sum of stdin: " + total);
        System.out.println("args: " + String.join(", ", args));
        Path note = Path.of("note.txt");
        Files.writeString(note, "written by Java\n");
        System.out.println("file: " + Files.readString(note).strip());
        System.err.println("this line is not part of it");
        System.exit(9);
    }
}
