import java.lang.management.ManagementFactory;

public class Main {
    public static void main(String[] args) {
        for (String name : new String[] {"java.class.path", "user.dir", "user.home", "user.name", "java.io.tmpdir", "file.encoding", "native.encoding", "stdout.encoding", "line.separator", "user.language", "user.timezone", "java.vm.name", "java.version", "java.vm.info", "sun.java.command", "java.home"}) {
            System.out.println(name + "=" + System.getProperty(name));
        }
        System.out.println(java.nio.charset.Charset.defaultCharset() + " " + java.util.Locale.getDefault() + " " + java.util.TimeZone.getDefault().getID());
        System.out.println(ManagementFactory.getRuntimeMXBean().getInputArguments());
        ManagementFactory.getGarbageCollectorMXBeans().forEach(bean -> System.out.println(bean.getName()));
    }
}
