package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Where all mailboxes count alike no other plan makes the stores more even, and none
// of those as even has fewer moves: small sites, against all plans there are.
func TestPlanIsTheBest(t *testing.T) {
	for seed := range uint64(600) {
		r := rand.New(rand.NewPCG(seed, 0))
		stores, start := map[string]*household{}, map[string]int{}
		added, drained := map[string]bool{}, map[string]bool{}
		var stay []string
		for i := range 2 + r.IntN(3) {
			name := fmt.Sprint("imap", i)
			kind := r.IntN(4)
			added[name], drained[name] = i > 0 && kind == 0, i > 0 && kind == 1
			home := &household{}
			if !added[name] {
				start[name] = 1 + r.IntN(5)
			}
			for n := range start[name] {
				home.residents = append(home.residents, resident{Login: fmt.Sprint(name, n), From: name, Weight: 1})
				home.weight++
			}
			stores[name] = home
			if !drained[name] {
				stay = append(stay, name)
			}
		}
		for name := range stores {
			if !added[name] {
				delete(added, name)
			}
			if !drained[name] {
				delete(drained, name)
			}
		}
		best, fewest := allPlans(start, stay, added, drained)

		end := map[string]int{}
		moves := evenOut(stores, added, drained)
		for name, n := range start {
			end[name] += n
		}
		for _, move := range moves {
			end[move.From]--
			end[move.To]++
			if !drained[move.From] && !added[move.To] || drained[move.To] || move.From == move.To {
				t.Errorf("seed %d: moves %v", seed, move)
			}
		}
		uneven := 0
		for _, name := range stay {
			uneven += end[name] * end[name]
		}
		if uneven != best || len(moves) != fewest {
			t.Errorf("seed %d: %v, added %v, drained %v: %v by %d moves (%d), the best are %d moves (%d)",
				seed, start, added, drained, end, len(moves), uneven, fewest, best)
		}
	}
}

// allPlans tells how even stores can be made, by the sum of squares, and by how few
// moves. Only how many go where makes a difference.
func allPlans(start map[string]int, stay []string, added, drained map[string]bool) (best, fewest int) {
	best = -1
	out, all := 0, 0
	for name, n := range start {
		if all += n; drained[name] {
			out += n
		}
	}
	var next func(i, left, given, taken, squares int)
	next = func(i, left, given, taken, squares int) {
		if i == len(stay) {
			// What the old stores give is for the added ones.
			if left == 0 && given <= taken {
				if moves := out + given; best < 0 || squares < best || squares == best && moves < fewest {
					best, fewest = squares, moves
				}
			}
			return
		}
		name := stay[i]
		for n := range all + 1 {
			gain := n - start[name]
			switch {
			case added[name]:
				next(i+1, left-gain, given, taken+gain, squares+n*n)
			case gain < 0:
				next(i+1, left-gain, given-gain, taken, squares+n*n)
			default:
				next(i+1, left-gain, given, taken, squares+n*n)
			}
		}
	}
	next(0, out, 0, 0, 0)
	return best, fewest
}
