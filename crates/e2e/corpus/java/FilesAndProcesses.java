import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;

public class Main {
    public static void main(String[] args) throws Exception {
        Files.writeString(Path.of("note.txt"), "text é");
        System.out.println(Files.readString(Path.of("note.txt")) + " " + Files.size(Path.of("note.txt")));
        try (var entries = Files.list(Path.of("."))) {
            entries.sorted(Comparator.comparing(Path::toString)).forEach(System.out::println);
        }
        Process child = new ProcessBuilder("java", "-version").redirectErrorStream(true).start();
        System.out.print(new String(child.getInputStream().readAllBytes()).lines().count() + " lines, ");
        System.out.println(child.waitFor());
        try {
            new ProcessBuilder("no-such-program").start();
        } catch (java.io.IOException error) {
            System.out.println(error.getMessage());
        }
        System.out.println(System.nanoTime() <= System.nanoTime() && System.currentTimeMillis() > 1_700_000_000_000L);
        System.out.println(new java.util.Random(42).nextInt(1000) + " " + java.util.List.of(1, 2).hashCode() + " " + "text".hashCode());
    }
}
