"""Everything that ``make bench`` measures beside criterion's kernels."""

from benches import throughput

if __name__ == "__main__":
    throughput.main()
