// Static data larger than all of the VM's memory: the program cannot be loaded.
// corpus: cause = "memory"
// corpus: signal = 11
#include <iostream>

static long long cells[200'000'000];

int main()
{
    cells[1] = 1;
    for (int i = 2; i < 200'000'000; i++)
        cells[i] = cells[i - 1] + cells[i - 2] + 1;
    std::cout << cells[199'999'999] << '\n';
}
