// The theme: that of the system, or the one that was chosen. Not a module, so that it counts before the first paint.

(() => {
    const STORED = "cloude-theme";
    const root = document.documentElement;

    function stored() {
        try {
            return localStorage.getItem(STORED) ?? "";
        } catch {
            return ""; // The browser forbids storage.
        }
    }

    function apply(theme) {
        if (theme === "light" || theme === "dark") root.dataset.theme = theme;
        else delete root.dataset.theme;
    }

    apply(stored());
    document.addEventListener("DOMContentLoaded", () => {
        const select = document.getElementById("theme");
        select.value = root.dataset.theme ?? "";
        select.addEventListener("change", () => {
            apply(select.value);
            try {
                localStorage.setItem(STORED, select.value);
            } catch {
                // Then it lasts until the page is left.
            }
        });
    });
})();
