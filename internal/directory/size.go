package directory

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// parseSize reads a number of octets, or of K, M, G or T of them, as a quota
// is written: "5368709120", "5G".
func parseSize(text string) (int64, error) {
	number, unit := text, int64(1)
	if n := len(text); n > 0 {
		if power := strings.IndexByte("KMGT", text[n-1]&^0x20); power >= 0 {
			number, unit = text[:n-1], 1<<(10*(power+1))
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a number of octets, as 5368709120 or 5G", text)
	}
	return int64(n) * unit, nil
}
