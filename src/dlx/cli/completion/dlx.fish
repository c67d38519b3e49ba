# Completion of dlx command lines in fish; printed by `dlx completion fish`.
function __dlx_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l current (commandline --current-token --cut-at-cursor | string unescape)
    test -n "$current"; or set current ''
    set -l program (string replace --regex '^~' $HOME -- $words[1])
    set -e words[1]
    set -l lines ($program __complete fish $words $current 2>/dev/null)
    set -l prefix (string match --regex '^--[^=]*=' -- $current)
    set -l rest (string replace --regex '^--[^=]*=' '' -- $current)
    switch "$lines[1]"
        case files
            printf "$prefix%s\n" (__fish_complete_path $rest)
        case folders
            printf "$prefix%s\n" (__fish_complete_directories $rest '')
        case words
            string replace --regex '\t(ends|goes on)\t' '\t' -- $lines[2..-1]
    end
end
complete --command dlx --erase
complete --command dlx --no-files --arguments '(__dlx_complete)'
