# fish completion for ldap2cdb, imapfront, mailwhere and postmap-route: install
# as /etc/fish/conf.d/postern.fish.
#
# The tools know their own flags: asked with --generate-bash-completion as the
# last word, they list what may stand there, and do nothing else. Behind "--" they
# would take it for a name, so nothing is asked there.

function __postern
    set -l before (commandline -opc)
    set -l word (commandline -ct)
    contains -- -- $before; and return
    switch $word
        case --
            set -a before -
        case '-*'
            set -a before $word
        case '*'
            # mailwhere lists the names of the map that start so, and must not take the
            # word before for one.
            string match -q '*mailwhere' $before[1]; and set -a before "$word"
    end
    $before --generate-bash-completion 2>/dev/null
end

# Files, too: what --config and its like take.
complete -c ldap2cdb -c imapfront -c mailwhere -c postmap-route -a '(__postern)'
